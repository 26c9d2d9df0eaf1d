"""What the promotion component does inside its container."""

from rarft import steps
from rarft.errors import report_errors


def run(checkpoint: str, results: str, passed: bool, final_uri: str) -> str:
    """Promote if there is a place to go to and the gates were passed; say what was done."""
    with report_errors("promote"):
        if not final_uri:
            print(f"{checkpoint} stays where it is: no final_uri", flush=True)
            return ""
        if not passed:
            print(f"{checkpoint} is not promoted: it did not pass its gates", flush=True)
            return ""
        print(f"{checkpoint} -> {final_uri}", flush=True)
        return steps.promote(checkpoint, results, final_uri)
