"""The pipeline as YAML, for a Kubeflow endpoint."""

import shutil
import tempfile
from pathlib import Path

from kfp import compiler

from pipelines.profiles import DEFAULT_PROFILE, PROFILES
from pipelines.rarft import build
from rarft.errors import InputError
from rarft.storage.files import local_path, make_folder, write_atomically


def compile_pipeline(out: str, profile: str = DEFAULT_PROFILE) -> None:
    """Write the compiled pipeline to `out`; complete or not there.

    Args:
        out: the file.
        profile: name of what is decided when compiling.

    Raises:
        InputError: `out` is a folder, or not on this machine; no such profile.
    """
    path = local_path(out, "--out")
    if path.is_dir():
        raise InputError(f"--out {out}: is a folder; give the file to write, such as {path / 'pipeline.yaml'}")
    if profile not in PROFILES:
        raise InputError(f"--profile {profile}: no such profile; use one of {', '.join(PROFILES)}")
    make_folder(path.parent)
    with tempfile.TemporaryDirectory() as folder, write_atomically(path) as temporary:
        compiled = Path(folder) / "pipeline.yaml"  # the compiler chooses the format by the file's ending
        compiler.Compiler().compile(build(PROFILES[profile]), str(compiled))
        shutil.copyfile(compiled, temporary)
