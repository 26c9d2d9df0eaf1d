"""What the fingerprint component does inside its container."""

from rarft import steps
from rarft.errors import reported
from rarft.evaluation.gates import gates_of
from rarft.storage import make_folder, place_of


def run(
    annotations: str, video_root: str, eval_annotations: str, eval_video_root: str, encoder: str,
    also_evaluate: str, gates: str, output_uri: str, final_uri: str,
) -> tuple[str, str]:  # fmt: skip
    """Make sure of what can be made sure of before hours of work; returns what the run reads as two texts."""
    with reported("fingerprint"):
        gates_of(gates)
        make_folder(place_of(output_uri, "output_uri"), "output_uri")
        if final_uri:
            make_folder(place_of(final_uri, "final_uri"), "final_uri")
        roots = (video_root or None, eval_annotations or None, eval_video_root or None)
        return steps.fingerprint(annotations, *roots, encoder or None, also_evaluate or None, ("rarft", "components"))
