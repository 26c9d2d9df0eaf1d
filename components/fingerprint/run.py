"""What the fingerprint component does inside its container."""

from rarft import steps
from rarft.checkpoint.locate import check_checkpoint, checkpoint_fingerprint
from rarft.errors import report_errors
from rarft.evaluation.gates import parse_gates
from rarft.storage.files import make_folder, place_of


def run(
    annotations: str, video_root: str, eval_annotations: str, eval_video_root: str, encoder: str,
    also_evaluate: str, gates: str, output_uri: str, final_uri: str,
) -> tuple[str, str, str]:  # fmt: skip
    """Make sure of what can be made sure of before hours of work; returns texts that change with what is read."""
    with report_errors("fingerprint"):
        parse_gates(gates)
        third = ""
        if also_evaluate:
            check_checkpoint(also_evaluate, "also_evaluate")
            third = checkpoint_fingerprint(also_evaluate, "also_evaluate")
        make_folder(place_of(output_uri, "output_uri"), "output_uri")
        if final_uri:
            make_folder(place_of(final_uri, "final_uri"), "final_uri")
        roots = (video_root or None, eval_annotations or None, eval_video_root or None)
        content, videos = steps.fingerprint(annotations, *roots, encoder or None, ("rarft", "components"))
        return content, videos, third
