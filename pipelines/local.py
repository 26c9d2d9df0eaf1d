"""`rarft run`: the pipeline on this machine, step by step."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from kfp import local

from pipelines.docker_runner import docker_runner
from pipelines.local_results import clear_results, print_summary, publish_results, upload_log
from pipelines.local_runner import run_pipeline
from pipelines.parameters import check_complete, parse
from pipelines.preflight import check
from pipelines.rarft import rarft_pipeline
from pipelines.training_flags import training_yaml
from rarft import steps
from rarft.errors import InputError, input_name
from rarft.storage.location import LocalFolder, Location, parse_location

_LOCK_TIMEOUT_S = 5.0  # for a run that was just stopped


@dataclass(frozen=True)
class LocalRun:
    """Options of `rarft run`, which its help documents."""

    annotations: str
    out: str
    video_root: str | None = None
    eval_annotations: str | None = None
    preset: str | None = None
    training_flags: Sequence[str] = ()
    assignments: Sequence[str] = ()
    runner: str = "subprocess"
    network: str | None = None
    gpus: bool = False
    work_dir: str | None = None


def _absolute(uri: str) -> str:
    """Return a local path as an absolute path, and a URI of a store as it is."""
    location = parse_location(uri)
    return str(location.path.resolve()) if isinstance(location, LocalFolder) else uri


def _absolute_if_exists(name_or_path: str) -> str:
    """Return a local path as an absolute path, and the name of a model as it is."""
    location = parse_location(name_or_path)
    return _absolute(name_or_path) if isinstance(location, LocalFolder) and location.path.exists() else name_or_path


def _absolute_candidate(text: str) -> str:
    """Return `[NAME=]CHECKPOINT_OR_PREDICTIONS` with an absolute path, if it is a local path."""
    name, source = steps.split_name(text)
    return f"{name}={_absolute_if_exists(source)}" if name else _absolute_if_exists(source)


def _input(uri: str, flag: str, is_kind: Callable[[Path], bool], kind: str) -> str:
    """Return the absolute path or URI of an input, after a check that a local path exists."""
    with input_name(flag):
        location = parse_location(uri)
        if isinstance(location, LocalFolder) and not is_kind(location.path):
            raise InputError(f"{location}: no such {kind}; check the path")
    return _absolute(uri)


def _parameters(options: LocalRun, work: Path) -> dict[str, Any]:
    """Return the pipeline's parameters, after a check."""
    spec = rarft_pipeline.pipeline_spec
    is_local = isinstance(parse_location(options.out), LocalFolder)
    values = {"output_uri": str(work) if is_local else options.out}
    values["annotations"] = _input(options.annotations, "--annotations", Path.is_file, "file")
    if options.eval_annotations:
        values["eval_annotations"] = _input(options.eval_annotations, "--eval-annotations", Path.is_file, "file")
    if options.video_root:
        values["video_root"] = _input(options.video_root, "--video-root", Path.is_dir, "folder")
    given = parse(options.assignments, spec)
    if "training" not in given:
        values["training"] = training_yaml(options.preset, options.training_flags, None if is_local else str(work))
        if fps := yaml.safe_load(values["training"]).get("video_fps"):
            given.setdefault("video_fps", float(fps))
    elif options.preset or options.training_flags:
        raise InputError("-p training=...: contains all training settings; remove --preset and the flags after `--`")
    if repeated := sorted(values.keys() & given.keys()):
        flag = "--out" if repeated[0] == "output_uri" else f"--{repeated[0].replace('_', '-')}"
        raise InputError(f"-p {repeated[0]}=...: use the dedicated flag {flag}")
    for name in given.keys() & {"eval_video_root", "final_uri"}:
        given[name] = _absolute(given[name])
    if given.get("durations"):
        given["durations"] = _input(given["durations"], "-p durations", Path.is_file, "file")
    if file := steps.format_file(given.get("format", "")):
        given["format"] = given["format"].replace(file, _absolute(file), 1)
    if "encoder" in given:
        given["encoder"] = _absolute_if_exists(given["encoder"])
    if "compare" in given:
        given["compare"] = ",".join(map(_absolute_candidate, steps.parse_compare(given["compare"])))
    merged = {**values, **given}
    check_complete(merged, spec)
    # Settings from flags are already checked, under the names of the flags.
    check({name: value for name, value in merged.items() if name != "training" or name in given})
    return merged


def _make_runner(options: LocalRun, values: dict[str, Any], work: Path) -> Any:
    if options.runner == "docker":
        return docker_runner(work, values, options.network, options.gpus)
    return local.SubprocessRunner(use_venv=False)


def run(options: LocalRun) -> None:
    """Run the whole pipeline on this machine; prints the metrics and the paths of the reports.

    Raises:
        InputError: Only the user can fix the cause.
        ChildFailedError: A step failed.
    """
    start = time.monotonic()
    out = parse_location(options.out)
    if options.runner != "docker" and (options.network or options.gpus):
        raise InputError("--docker-network, --gpus: require --runner docker")
    if isinstance(out, LocalFolder):
        if options.work_dir:
            raise InputError("--work-dir: requires --out s3://...; a local --out is also the working folder")
        out = LocalFolder(out.path.resolve())
        work = out.path
    else:
        with input_name("--work-dir"):
            work_dir = parse_location(options.work_dir or steps.default_work_dir(options.out))
            if not isinstance(work_dir, LocalFolder):
                raise InputError(f"{work_dir}: must be a local folder")
        work = work_dir.path.resolve()
    values = _parameters(options, work)
    for flag, location in {"--out": out, "--work-dir": LocalFolder(work)}.items():
        with input_name(flag):
            location.make()
    with contextlib.ExitStack() as stack:
        with input_name("--out" if isinstance(out, LocalFolder) else "--work-dir"):
            stack.enter_context(LocalFolder(work).lock(_LOCK_TIMEOUT_S))
        _run_locked(options, values, work, out, start)


def _run_locked(options: LocalRun, values: dict[str, Any], work: Path, out: Location, start: float) -> None:
    """Run the pipeline in a folder that no other run uses."""
    clear_results(work, out)
    try:
        runner = partial(_make_runner, options, values, work)
        outputs = run_pipeline(rarft_pipeline.pipeline_spec, values, work, runner)
        publish_results(outputs, work, out)
    except Exception:
        with contextlib.suppress(InputError):  # the first error is the one to report
            upload_log(work, out)
        raise
    upload_log(work, out)
    print_summary(outputs, options.out, out, start)
