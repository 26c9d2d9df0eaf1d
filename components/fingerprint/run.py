"""Body of the fingerprint component."""

from components.runtime import run_component
from rarft import steps
from rarft.errors import input_name


def run(
    annotations: str, video_root: str, eval_annotations: str, eval_video_root: str, encoder: str,
    compare: str, gates: str, output_uri: str, final_uri: str,
) -> tuple[str, str, str]:  # fmt: skip
    """Check what can be checked before hours of work; returns fingerprints of the inputs."""
    with run_component("fingerprint"):
        with input_name("gates"):
            steps.parse_gates(gates)
        with input_name("compare"):
            compare_fingerprint = steps.fingerprint_candidates(steps.parse_compare(compare))
        for name, uri in {"output_uri": output_uri, "final_uri": final_uri}.items():
            if uri:
                steps.check_writable(uri, name)
        cache_key, videos_fingerprint = steps.fingerprint(
            annotations, video_root or None, eval_annotations or None, eval_video_root or None, encoder or None,
            packages=("rarft", "components"),
        )  # fmt: skip
        return cache_key, videos_fingerprint, compare_fingerprint
