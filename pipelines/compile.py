"""`rarft compile`: the pipeline as YAML, for a Kubeflow endpoint."""

import tempfile
from pathlib import Path

from kfp import compiler

from pipelines.profiles import DEFAULT_PROFILE, PROFILES
from pipelines.rarft import build
from rarft.errors import InputError
from rarft.storage.location import LocalFolder, parse_location


def compile_pipeline(out: str, profile: str = DEFAULT_PROFILE) -> None:
    """Write the pipeline, compiled for a profile, to a path or URI, atomically."""
    location = parse_location(out)
    if isinstance(location, LocalFolder) and location.path.is_dir():
        raise InputError(f"--out {out}: is a folder; give a file, such as {location.child('pipeline.yaml')}")
    if profile not in PROFILES:
        raise InputError(f"--profile {profile}: no such profile; use one of {', '.join(PROFILES)}")
    location.parent.make()
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "pipeline.yaml"  # the compiler derives the format from the name
        compiler.Compiler().compile(build(PROFILES[profile]), str(compiled))
        location.parent.upload([(location.name, compiled)])
