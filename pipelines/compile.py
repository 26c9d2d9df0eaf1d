"""The pipeline as YAML, for a Kubeflow endpoint."""

from pathlib import Path

from kfp import compiler

from pipelines.rarft import rarft_pipeline
from rarft.storage import write_atomically


def compile_pipeline(out: str) -> None:
    """Write the compiled pipeline to `out`; complete or not there."""
    path = Path(out)
    with write_atomically(path) as temporary:
        # The compiler chooses the format by the file's ending.
        compiled = temporary.with_suffix(".yaml")
        compiler.Compiler().compile(rarft_pipeline, str(compiled))
        compiled.replace(temporary)
