"""`rarft run`: the pipeline's own definition, step by step on this machine."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from kfp import local

from pipelines.checks import check
from pipelines.parameters import check_complete, parse
from pipelines.rarft import rarft_pipeline
from pipelines.runners import RUN_LOG, docker_runner, execute
from rarft.annotations.validate import REPORT_JSON
from rarft.errors import InputError
from rarft.evaluation.report import METRICS_JSON, REPORT_HTML, console_table
from rarft.storage import s3
from rarft.storage.files import (
    Location,
    existing_file,
    existing_folder,
    join_path,
    local_path,
    make_folder,
    write_files,
)
from rarft.storage.sqlite_cache import user_cache

DEFAULT_PRESET = "tiny"
# Parameters that are a folder where one is there, and else a name.
_NAMES_OR_FOLDERS = ("encoder", "also_evaluate")
# What the steps made, by its name in the run's folder; and the pipeline's output, and the file that is written last.
RESULTS = {
    "validation": ("data", REPORT_JSON),
    "validation-eval": ("eval_data", "riq.jsonl"),
    "evaluation": ("results", METRICS_JSON),
}


@dataclass(frozen=True)
class LocalRun:
    """What `rarft run` was asked for.

    Args:
        annotations: training annotations, a path or URI.
        out: folder or URI for everything.
        video_root: where their videos lie; None for beside them.
        eval_annotations: held-out annotations; None evaluates in-sample.
        preset: named training settings; None for `tiny`.
        training_flags: flags of `rarft train` that override the preset.
        assignments: other parameters of the pipeline, each `name=value`.
        runner: `subprocess`, or `docker` for a container a step.
        network: Docker network that containers join.
        gpus: whether containers get the machine's GPUs.
        scratch: with `out` in a store, local folder to work in; None for one in the user's cache.
    """

    annotations: str
    out: str
    video_root: str | None = None
    eval_annotations: str | None = None
    preset: str | None = None
    training_flags: Sequence[str] = ()
    assignments: Sequence[str] = field(default_factory=tuple)
    runner: str = "subprocess"
    network: str | None = None
    gpus: bool = False
    scratch: str | None = None


def _flags(given: Sequence[str]) -> dict[str, Any]:
    """Return flags of `rarft train` as a mapping of texts, and of lists where a flag has several values.

    Raises:
        InputError: a value without a flag.
    """
    words: dict[str, list[str]] = {}
    name, closed = "", "no flag yet"
    for flag in given:
        if flag.startswith("--"):
            name, closed, value = flag.removeprefix("--").partition("=")
            words[name] = [value] if closed else []
        elif closed:
            raise InputError(f"rarft run: {flag!r} after `--` belongs to no flag; write `-- --flag value`")
        else:
            words[name].append(flag)
    settings: dict[str, Any] = {}
    for name, values in words.items():
        if values:
            settings[name] = values if len(values) > 1 else values[0]
        else:  # a switch: --bf16 or --no_bf16
            settings[re.sub("^no[-_]", "", name)] = "false" if re.match("no[-_]", name) else "true"
    return settings


def _training(asked: LocalRun, scratch: str | None) -> str:
    """Return the run's training settings as YAML: the preset, and the flags of `rarft train` that override it.

    Raises:
        InputError: a value without a flag, an unknown flag, or a value that does not fit it.
    """
    if asked.preset is None:
        print(
            f"rarft run: training settings are the preset `{DEFAULT_PRESET}`; choose others with --preset. "
            "Its model of a million parameters knows the synthetic clips alone: on other videos it shows that data "
            "run through",
            flush=True,
        )
    settings = {"preset": asked.preset or DEFAULT_PRESET, **_flags(asked.training_flags)}
    if asked.preset or asked.training_flags:
        from rarft.training.settings_parser import parse_settings  # takes seconds

        parse_settings([f"--preset={settings['preset']}", *asked.training_flags], check_gpus=False)
    return yaml.safe_dump({**({"work_dir": scratch} if scratch else {}), **settings})


def _where(uri: str, what: str, existing: Any) -> str:
    """An absolute local path that was looked for, or a URI as it is."""
    return uri if s3.is_object_uri(uri) else str(existing(uri, what).resolve())


def _values(asked: LocalRun, work: Path) -> dict[str, Any]:
    """The pipeline's parameters.

    Raises:
        InputError: one is wrong, missing, or given twice.
    """
    spec = rarft_pipeline.pipeline_spec
    values = {"annotations": _where(asked.annotations, "--annotations", existing_file)}
    if asked.eval_annotations:
        values["eval_annotations"] = _where(asked.eval_annotations, "--eval-annotations", existing_file)
    if asked.video_root:
        values["video_root"] = _where(asked.video_root, "--video-root", existing_folder)
    in_store = s3.is_object_uri(asked.out)
    values["output_uri"] = asked.out if in_store else str(work)
    given = parse(asked.assignments, spec)
    if "training" not in given:
        values["training"] = _training(asked, str(work) if in_store else None)
    elif asked.preset or asked.training_flags:
        raise InputError("-p training=...: holds all training settings; leave --preset and the flags after `--` out")
    if twice := sorted(values.keys() & given.keys()):
        flag = "--out" if twice[0] == "output_uri" else f"--{twice[0].replace('_', '-')}"
        raise InputError(f"-p {twice[0]}=...: has a flag of its own, {flag}")
    for name in ("eval_video_root", "final_uri", *_NAMES_OR_FOLDERS):
        if name in given and (name not in _NAMES_OR_FOLDERS or Path(given[name]).exists()):
            given[name] = _where(given[name], name, local_path)
    check_complete({**values, **given}, spec)
    check({name: value for name, value in {**values, **given}.items() if name != "training" or name in given})
    return {**values, **given}


def _runner(asked: LocalRun, values: dict[str, Any], work: Path) -> Any:
    if asked.runner == "subprocess":
        return local.SubprocessRunner(use_venv=False)
    # What the training settings name by a path lies on this machine, too.
    settings = yaml.safe_load(values["training"]) or {}
    named = {name: Path(value) for name, value in settings.items() if isinstance(value, str) and value.startswith("/")}
    folders = [(values.get(name, ""), True) for name in ("annotations", "eval_annotations")]
    folders += [(values.get(name, ""), False) for name in ("video_root", "eval_video_root")]
    reads = [Path(uri).parent if is_file else Path(uri) for uri, is_file in folders if uri.startswith("/")]
    reads += [target.parent for root in reads for target in _links_out_of(root)]
    reads += [Path(values[name]) for name in _NAMES_OR_FOLDERS if values.get(name, "").startswith("/")]
    reads += [path for path in named.values() if path.exists()]
    final = values.get("final_uri", "")
    writes = [Path(final).parent] if final.startswith("/") else []
    writes += [path for name, path in named.items() if name in ("frame_cache", "work_dir")]
    return docker_runner(work, reads, writes, asked.network, asked.gpus)


def _links_out_of(root: Path) -> set[Path]:
    """Where the links in a folder lead to, outside of it."""
    targets = {path.resolve() for path in root.rglob("*") if path.is_symlink()}
    return {target for target in targets if root not in target.parents and target.exists()}


def _work_folder(asked: LocalRun) -> Path:
    """The local folder that the run works in."""
    if not s3.is_object_uri(asked.out):
        return local_path(asked.out, "--out").resolve()
    own = user_cache("runs") / hashlib.sha256(asked.out.encode()).hexdigest()
    return Path(asked.scratch or own).resolve()


def _send_log(work: Path, out: Location) -> None:
    if s3.is_object_uri(out) and (work / RUN_LOG).exists():
        s3.upload([(join_path(out, RUN_LOG), work / RUN_LOG)], "--out")


def _publish(outputs: dict[str, Any], work: Path, out: Location) -> None:
    """Show what the steps made under one name each: links here, copies in a store."""
    for name, (output, last) in RESULTS.items():
        made = Path(outputs[output].path)
        if not s3.is_object_uri(out):
            (work / name).symlink_to(os.path.relpath(made, work))
            continue
        with write_files(join_path(out, name), last) as folder:
            shutil.copytree(made, folder, dirs_exist_ok=True)


def run(asked: LocalRun) -> None:
    """Run the whole pipeline on this machine; prints where its reports are, and the scores before and after.

    Raises:
        InputError: what the user can mend, found before the first step or by a step.
        ChildFailedError: a step failed; its line.
    """
    started = time.monotonic()
    if asked.runner != "docker" and (asked.network or asked.gpus):
        raise InputError("--docker-network and --gpus go with --runner docker; processes have what this machine has")
    if asked.scratch and not s3.is_object_uri(asked.out):
        raise InputError("--scratch goes with --out s3://...; else --out itself is worked in")
    work = _work_folder(asked)
    values = _values(asked, work)
    out: Location = asked.out if s3.is_object_uri(asked.out) else work
    make_folder(out)
    make_folder(work, "--scratch")
    for name in RESULTS:
        if (work / name).exists() and not (work / name).is_symlink():
            raise InputError(f"--out {asked.out}: holds a {name} that is no run's; choose another folder")
        (work / name).unlink(missing_ok=True)  # an earlier run's: not to be taken for this one's
        if s3.is_object_uri(out):
            s3.delete(join_path(out, f"{name}/{RESULTS[name][1]}"), "--out")
    try:
        spec = rarft_pipeline.pipeline_spec
        outputs = execute(spec, values, work, partial(_runner, asked, values, work))
        _publish(outputs, work, out)
    except Exception:
        with contextlib.suppress(s3.StoreError):  # the step's own error is the one to tell
            _send_log(work, out)
        raise
    _send_log(work, out)
    _summarize(outputs, asked.out, str(out))
    print(f"done in {time.monotonic() - started:.0f} s")


def _summarize(outputs: dict[str, Any], shown: str, out: str) -> None:
    from rarft.reporting.training_log import TRAINING_HTML

    evaluation, validation = Path(outputs["results"].path), Path(outputs["data"].path)
    print(console_table(json.loads((evaluation / METRICS_JSON).read_text(encoding="utf-8"))))
    counts = json.loads((validation / REPORT_JSON).read_text(encoding="utf-8"))["counts"]
    checkpoint = outputs["checkpoint"].replace(out, shown.rstrip("/"), 1)
    print(f"\nquarantined:        {counts['quarantined']} of {counts['queries']} queries")
    print(f"validation report:  {join_path(shown, f'validation/{REPORT_HTML}')}")
    print(f"evaluation report:  {join_path(shown, f'evaluation/{REPORT_HTML}')}")
    print(f"training curves:    {checkpoint.rpartition('/')[0]}/{TRAINING_HTML}")
    print(f"trained checkpoint: {checkpoint}")
    if outputs["promoted"]:
        print(f"promoted:           {outputs['promoted']}")
    print(f"all output:         {join_path(shown, RUN_LOG)}")
