"""The pipeline as YAML, for a Kubeflow endpoint."""

from kfp import compiler

from pipelines.rarft import rarft_pipeline
from rarft.errors import InputError
from rarft.storage import local_path, write_atomically


def compile_pipeline(out: str) -> None:
    """Write the compiled pipeline to `out`; complete or not there.

    Raises:
        InputError: `out` is a folder, or not on this machine.
    """
    path = local_path(out, "--out")
    if path.is_dir():
        raise InputError(f"--out {out}: is a folder; give the file to write, such as {path / 'pipeline.yaml'}")
    with write_atomically(path) as temporary:
        # The compiler chooses the format by the file's ending.
        compiled = temporary.with_suffix(".yaml")
        compiler.Compiler().compile(rarft_pipeline, str(compiled))
        compiled.replace(temporary)
