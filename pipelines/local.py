"""`rarft run`: the pipeline's own definition, step by step on this machine, by Kubeflow's local runner."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from pipelines.console import ConsoleFilter
from rarft.errors import EXIT_BAD_INPUT, STARTER_TELLS, InputError
from rarft.evaluation.evaluate import METRICS_JSON, REPORT_HTML
from rarft.evaluation.report import console_table
from rarft.grpo.curves import TRAINING_HTML
from rarft.riq.validate import REPORT_JSON
from rarft.storage import existing_file, existing_folder, local_path

DEFAULT_PRESET = "tiny"
RUN_LOG = "run.log"
RESULTS = ("validation", "validation-eval", "evaluation")  # links in the run's folder to what its steps made


def _training_settings(preset: str | None, flags: list[str]) -> dict[str, Any]:
    """The run's training settings as a mapping: the preset, and the flags of `rarft train` given beside it.

    Raises:
        InputError: a flag that `rarft train` does not take.
    """
    if preset is None:
        print(
            f"rarft run: training settings are the preset `{DEFAULT_PRESET}`; choose others with --preset. "
            "Its model of a million parameters knows the synthetic clips alone: on other videos it shows that data "
            "run through",
            flush=True,
        )
    settings: dict[str, Any] = {"preset": preset or DEFAULT_PRESET, "resume_from_checkpoint": "auto"}
    name = ""
    for flag in flags:
        if flag.startswith("--"):
            name, _, value = flag.removeprefix("--").partition("=")
            settings[name] = value or []
        elif not name or isinstance(settings[name], str):
            raise InputError(f"rarft run: {flag!r} after `--` belongs to no flag; write `-- --flag value`")
        else:
            settings[name].append(flag)
    if flags or preset:
        from rarft.grpo.config import parse, yaml_arguments

        parse(yaml_arguments(settings, "training flags"))
    return settings


def _failure(log: Path) -> BaseException:
    """The cause that a failed step left in its termination log, as the error that it was."""
    if not log.exists():
        return RuntimeError(f"a step ended without saying why; all output stands in {log.with_name(RUN_LOG)}")
    code, _, cause = log.read_text(encoding="utf-8").strip().partition(" ")
    return InputError(cause) if int(code) == EXIT_BAD_INPUT else RuntimeError(cause)


def run(
    annotations: str, video_root: str | None, eval_annotations: str | None, out: str, preset: str | None,
    training_flags: list[str],
) -> None:  # fmt: skip
    """Run the whole pipeline on this machine and print where its reports are, and the scores before and after.

    Args:
        annotations: training annotations.
        video_root: where their videos lie; None for beside them.
        eval_annotations: held-out annotations; None evaluates in-sample.
        out: folder for everything.
        preset: named training settings; None for `tiny`.
        training_flags: flags of `rarft train` that override the preset.

    Raises:
        InputError: what the user can mend, found before the first step or by a step.
        RuntimeError: a step failed.
    """
    started = time.monotonic()
    paths = {"annotations": str(existing_file(annotations, "--annotations").resolve())}
    if eval_annotations:
        paths["eval_annotations"] = str(existing_file(eval_annotations, "--eval-annotations").resolve())
    if video_root:
        paths["video_root"] = str(existing_folder(video_root, "--video-root").resolve())
    settings = _training_settings(preset, training_flags)
    folder = local_path(out, "--out").resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror}); choose another folder") from error

    for name in RESULTS:
        if (folder / name).exists() and not (folder / name).is_symlink():
            raise InputError(f"--out {out}: holds a {name} that is no run's; choose another folder")
        (folder / name).unlink(missing_ok=True)  # an earlier run's: not to be taken for this one's
    outputs = _execute(folder, {**paths, "training": yaml.safe_dump(settings), "output_uri": str(folder)})

    for name, target in zip(RESULTS, (outputs["data"], outputs["eval_data"], outputs["results"]), strict=True):
        (folder / name).symlink_to(os.path.relpath(target.path, folder))
    metrics = json.loads((folder / "evaluation" / METRICS_JSON).read_text(encoding="utf-8"))
    shown = Path(out)
    print(console_table(metrics))
    counts = json.loads((folder / "validation" / REPORT_JSON).read_text(encoding="utf-8"))["counts"]
    print(f"\nquarantined:        {counts['quarantined']} of {counts['queries']} queries")
    print(f"validation report:  {shown / 'validation' / REPORT_HTML}")
    print(f"evaluation report:  {shown / 'evaluation' / REPORT_HTML}")
    checkpoint = shown / Path(outputs["checkpoint"]).relative_to(folder)
    print(f"training curves:    {checkpoint.parent / TRAINING_HTML}")
    print(f"trained checkpoint: {checkpoint}")
    print(f"all output:         {shown / RUN_LOG}")
    print(f"done in {time.monotonic() - started:.0f} s")


def _execute(folder: Path, arguments: dict[str, str]) -> dict[str, Any]:
    """Run the pipeline by Kubeflow's local runner, in this environment; returns the pipeline's outputs."""
    from kfp import local

    from pipelines.rarft import rarft_pipeline

    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder / "pipeline"),
        raise_on_error=True,
    )
    steps = len(rarft_pipeline.pipeline_spec.root.dag.tasks)
    cause = folder / ".failure"
    cause.unlink(missing_ok=True)
    os.environ[STARTER_TELLS] = str(cause)
    try:
        with (
            (folder / RUN_LOG).open("w", encoding="utf-8") as log,
            contextlib.redirect_stdout(ConsoleFilter(sys.stdout, log, steps)),
        ):
            return rarft_pipeline(**arguments).outputs
    except RuntimeError as error:
        raise _failure(cause) from error
    finally:
        del os.environ[STARTER_TELLS]
