"""`rarft`: parse the command line, call a step, tell an error in one line.

Nothing heavy is imported before a command is known, so that `rarft --help` answers at once.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from rarft import __version__
from rarft.cli.types import count, fraction, positive, seconds, share_or_number
from rarft.errors import EXIT_BAD_INPUT, report_errors, suggest_flag

_EXIT_CODES = "Exit codes: 0 done, 1 the work failed, 2 bad usage or bad input."


class _Parser(argparse.ArgumentParser):
    commands: Mapping[str, argparse.ArgumentParser]

    def error(self, message: str) -> NoReturn:
        hint = suggest_flag(message, self._option_string_actions)
        print(f"{self.prog}: {message}{hint}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT)


def _sample(options: argparse.Namespace) -> None:
    from rarft import steps

    for path in steps.make_dataset(
        options.out, {"train": options.train, "dev": options.dev, "eval": options.eval}, options.seed
    ):
        print(path)


def _validate(options: argparse.Namespace) -> None:
    from rarft import steps
    from rarft.annotations.validate import summary

    report = steps.validate(
        options.annotations,
        options.out,
        options.video_root,
        tolerance=options.tolerance,
        probe_videos=not options.no_probe_videos,
        video_cache=options.video_cache,
        without_repairs=options.no_repair,
        split=options.split,
        seed=options.seed,
        exclude_videos_from=options.against,
    )
    print(summary(report))
    print(f"report: {options.out}/report.html")
    steps.check_quarantine(report["counts"], "0" if options.strict else options.max_quarantine)


def _embed(options: argparse.Namespace) -> None:
    from rarft import steps

    steps.embed(options.data, options.out, options.encoder)


def _train(arguments: list[str]) -> None:
    from rarft.distributed.launch import exit_with_parent

    exit_with_parent()
    from rarft import steps

    checkpoint = steps.train(arguments)
    if os.environ.get("RANK", "0") == "0":  # one of the processes that torchrun started
        print(f"checkpoint: {checkpoint}")


def _cache_videos(arguments: list[str]) -> None:
    from rarft import steps

    print(steps.cache_videos(arguments))


def _inspect_prompt(arguments: list[str]) -> None:
    from rarft import steps

    print(steps.inspect_prompt(arguments))


def _evaluate(options: argparse.Namespace) -> None:
    from rarft import steps
    from rarft.evaluation.report import console_table

    names = (
        "predictions", "base", "base_predictions", "encoder", "backend", "batch_size", "categories", "judge_url",
        "judge_model", "judge_cache", "also_evaluate",
    )  # fmt: skip
    metrics = steps.evaluate(
        options.checkpoint,
        options.data,
        options.out,
        **{name: getattr(options, name) for name in names},
        in_sample=options.in_sample or None,
        judge_prices=tuple(options.judge_prices) if options.judge_prices else None,
        gates=options.gate,
    )
    if not metrics:  # another of torchrun's processes reports
        return
    print(console_table(metrics))
    print(f"report: {options.out}/report.html")
    steps.check_gates(metrics)


def _promote(options: argparse.Namespace) -> None:
    from rarft import steps

    print(steps.promote(options.checkpoint, options.evaluation, options.to))


def _score(options: argparse.Namespace) -> None:
    from rarft import steps

    means = steps.score(
        options.predictions,
        options.data,
        options.out,
        options.reward_funcs,
        options.reward_weights,
        options.encoder,
        options.embeddings,
        options.correction_baseline,
    )
    for name, value in means.items():
        print(f"{name:<40}" + (f"{value:8.3f}" if value is not None else f"{'-':>8}"))
    print(f"report: {options.out}/report.html")


def _run(options: argparse.Namespace) -> None:
    print("rarft run: looking at what was asked for", flush=True)
    from pipelines.local import LocalRun, run

    asked = LocalRun(
        annotations=options.annotations,
        out=options.out,
        video_root=options.video_root,
        eval_annotations=options.eval_annotations,
        preset=options.preset,
        training_flags=options.training_flags,
        assignments=options.parameter,
        runner=options.runner,
        network=options.docker_network,
        gpus=options.gpus,
        scratch=options.scratch,
    )
    run(asked)


def _compile(options: argparse.Namespace) -> None:
    from pipelines.compile import compile_pipeline

    compile_pipeline(options.out, options.profile)
    print(options.out)


def _submit(options: argparse.Namespace) -> None:
    from pipelines.submit import submit

    names = ("pipeline", "profile", "experiment", "name", "namespace", "pipeline_root")
    print(submit(options.endpoint, options.parameter, **{name: getattr(options, name) for name in names}))


def _cancel(options: argparse.Namespace) -> None:
    from rarft.cluster.cancel import cancel
    from rarft.cluster.client import connect, current_namespace

    namespace = options.namespace or current_namespace()
    cancel(connect(), namespace, options.job)
    print(f"job {options.job} in namespace {namespace}: deleted; its pods save a checkpoint, and end")


def _doctor(options: argparse.Namespace) -> None:
    from rarft.cluster.doctor import FAILS, DoctorOptions, examine, table
    from rarft.errors import CheckFailedError

    names = ("data", "out", "gpus", "cluster", "namespace", "image", "queue")
    findings = examine(DoctorOptions(**{name: getattr(options, name) for name in names}))
    print(table(findings))
    if failing := [finding.what for finding in findings if finding.verdict == FAILS]:
        raise CheckFailedError(f"would fail: {', '.join(failing)}")


def _parser() -> _Parser:
    parser = _Parser(
        prog="rarft",
        description="Refusal-aware reinforcement fine-tuning of Qwen2.5-VL for video temporal grounding.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"rarft {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, epilog=_EXIT_CODES)
        added.set_defaults(run=run)
        return added

    sample = command("sample", _sample, "Render a synthetic RIQ data set with its videos.")
    sample.add_argument("--out", required=True, help="folder to write {train,dev,eval}.json and videos/ into")
    sample.add_argument("--train", type=count, default=300, help="videos of the training split (default 300)")
    sample.add_argument("--dev", type=count, default=0, help="videos of the development split (default 0)")
    sample.add_argument("--eval", type=count, default=60, help="videos of the held-out split (default 60)")
    sample.add_argument("--seed", type=count, default=0, help="of everything that is drawn (default 0)")

    validate = command("validate", _validate, "Check and repair RIQ annotations; lose no query.")
    validate.add_argument("annotations", help="JSON list or JSON Lines, plain or gzipped")
    validate.add_argument("--out", required=True, help="folder for riq.jsonl, quarantine.jsonl and the reports")
    validate.add_argument("--video-root", help="where the videos lie (default: beside the annotations)")
    validate.add_argument(
        "--tolerance", type=seconds, default=1.0, help="seconds past the end that are clamped (default 1.0)"
    )
    validate.add_argument("--no-probe-videos", action="store_true", help="do not look at the videos at all")
    validate.add_argument(
        "--video-cache", help="file that remembers what videos are (default: in the user's cache folder)"
    )
    validate.add_argument(
        "--no-repair",
        action="append",
        default=[],
        metavar="NAME",
        help="turn a repair off (docs/checks.md); repeatable",
    )
    validate.add_argument(
        "--split", type=fraction, help="share of the queries to train on, split by video, such as 0.9"
    )
    validate.add_argument("--seed", type=count, default=0, help="of the split (default 0)")
    validate.add_argument("--against", help="annotations that must share no video with these")
    validate.add_argument(
        "--max-quarantine",
        type=share_or_number,
        metavar="SHARE",
        help="exit with 1 if more is quarantined: 5%% or 120",
    )
    validate.add_argument("--strict", action="store_true", help="exit with 1 if anything is quarantined")

    embed = command("embed", _embed, "Encode the reference queries of validated data, once.")
    embed.add_argument("data", help="riq.jsonl, or the folder that holds it")
    embed.add_argument("--out", required=True, help="folder for embeddings.safetensors and index.json")
    embed.add_argument("--encoder", help="SentenceTransformer name or folder (default all-MiniLM-L6-v2)")

    commands.add_parser("train", add_help=False, help="Train by GRPO; see `rarft train --help` for its flags.")
    commands.add_parser(
        "cache-videos", add_help=False, help="Decode a training run's videos into --frame_cache; flags as of train."
    )
    commands.add_parser(
        "inspect-prompt", add_help=False, help="Show what the model reads for one query; --id, and flags of train."
    )

    evaluate = command("evaluate", _evaluate, "Evaluate a checkpoint on validated data, or finished predictions.")
    evaluate.add_argument("--checkpoint", help="a folder, a hub name, an s3:// URI, or `tiny`")
    evaluate.add_argument("--predictions", help="in place of a checkpoint: predictions.jsonl, or published inference")
    evaluate.add_argument("--data", help="riq.jsonl, or the folder that holds it; predictions may do without")
    evaluate.add_argument("--out", required=True, help="folder for predictions.jsonl, metrics.json and report.html")
    evaluate.add_argument("--base", help="a checkpoint to compare with")
    evaluate.add_argument("--base-predictions", help="finished predictions to compare with")
    evaluate.add_argument("--also-evaluate", metavar="CHECKPOINT", help="a third checkpoint to show beside both")
    evaluate.add_argument("--backend", default="transformers", help="what completes: transformers (default) or vllm")
    evaluate.add_argument("--batch-size", type=positive, default=16, help="prompts per batch (default 16)")
    evaluate.add_argument("--categories", choices=["rules"], help="read mismatch categories by rules (rough)")
    evaluate.add_argument("--judge-url", help="OpenAI-compatible endpoint; its key: OPENAI_API_KEY")
    evaluate.add_argument("--judge-model", help="model that judges")
    evaluate.add_argument("--judge-cache", help="file that remembers verdicts (default: in the user's cache folder)")
    evaluate.add_argument(
        "--judge-prices", nargs=2, type=float, metavar=("IN", "OUT"), help="US dollars per million tokens"
    )
    evaluate.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="METRIC>=BOUND",
        help="exit with 1 unless it holds: relevance.f1_avg>=0.70 or ra_iou.mean>=base; repeatable",
    )
    evaluate.add_argument("--encoder", help="SentenceTransformer name or folder (default all-MiniLM-L6-v2)")
    evaluate.add_argument("--in-sample", action="store_true", help="label every figure: these data were trained on")

    promote = command("promote", _promote, "Copy a checkpoint that passed its gates to where it is shipped from.")
    promote.add_argument("--checkpoint", required=True, help="a folder or URI of `rarft train`")
    promote.add_argument("--evaluation", required=True, help="folder that `rarft evaluate` wrote")
    promote.add_argument("--to", required=True, help="folder or s3:// URI; what it holds is replaced")

    score = command("score", _score, "Replay rewards on finished completions, term by term.")
    score.add_argument("predictions", help='JSON Lines with "id" and "completion", or what `rarft evaluate` wrote')
    score.add_argument("--data", required=True, help="riq.jsonl, or the folder that holds it")
    score.add_argument("--out", required=True, help="folder for scores.csv and report.html")
    score.add_argument(
        "--reward_funcs",
        nargs="+",
        default=["format", "refuse_iou", "explain_correction"],
        help="rewards, as for training",
    )
    score.add_argument("--reward_weights", nargs="+", type=float, help="one for each reward (default 1)")
    score.add_argument("--correction_baseline", choices=["none", "query"], default="none", help="as for training")
    score.add_argument("--encoder", help="SentenceTransformer name or folder (default all-MiniLM-L6-v2)")
    score.add_argument("--embeddings", help="precomputed reference embeddings of `rarft embed`")

    _pipeline_commands(command)
    parser.commands = commands.choices
    return parser


def _pipeline_commands(command: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """What works on the pipeline as a whole."""
    from pipelines.profiles import DEFAULT_PROFILE, PROFILES

    run = command("run", _run, "Run the whole pipeline on this machine. Flags of `rarft train` may follow `--`.")
    run.add_argument("--annotations", required=True, help="training annotations in the RIQ format")
    run.add_argument("--video-root", help="where the videos lie (default: beside the annotations)")
    run.add_argument("--eval-annotations", help="held-out annotations (default: evaluate in-sample, labelled so)")
    run.add_argument("--out", required=True, help="folder or s3:// URI for everything that the run makes")
    run.add_argument("--preset", help="named training settings (default tiny)")
    run.add_argument("--runner", choices=["subprocess", "docker"], default="subprocess", help="what a step runs in")
    run.add_argument("--docker-network", metavar="NETWORK", help="network that containers join, such as host")
    run.add_argument("--gpus", action="store_true", help="with --runner docker: containers get the GPUs")
    run.add_argument("--scratch", help="with --out s3://: folder to work in (default: in the user's cache folder)")
    run.add_argument("training_flags", nargs="*", metavar="-- TRAINING FLAGS", help="flags of `rarft train`")

    compiled = command("compile", _compile, "Compile the Kubeflow pipeline to YAML.")
    compiled.add_argument("--out", required=True, help="file to write")

    submit = command("submit", _submit, "Start a run of the pipeline on a Kubeflow endpoint.")
    submit.add_argument("--endpoint", required=True, help="URL of Kubeflow Pipelines' API; its token: KFP_TOKEN")
    submit.add_argument("--pipeline", metavar="FILE", help="compiled pipeline (default: compiled now)")
    submit.add_argument("--experiment", default="rarft", help="that the run belongs to (default rarft)")
    submit.add_argument("--name", help="of the run (default: with the time)")
    submit.add_argument("--namespace", help="where Kubeflow has several users")
    submit.add_argument("--pipeline-root", metavar="URI", help="where artifacts go (default: as the endpoint has it)")
    cancel = command("cancel", _cancel, "End a PyTorchJob on the cluster.")
    cancel.add_argument("job", help="its name; of a pipeline's run, rarft-RUN_ID")
    cancel.add_argument("--namespace", help="where it runs (default: one's own)")

    doctor = command("doctor", _doctor, "Look at what would fail later; exit code 1 if something would.")
    doctor.add_argument("--data", help="annotations or validated data that should be there")
    doctor.add_argument("--out", help="folder or s3:// URI that should be writable")
    doctor.add_argument("--gpus", type=count, help="how many this machine should show")
    doctor.add_argument("--cluster", action="store_true", help="look at the cluster, too")
    doctor.add_argument("--namespace", help="on the cluster (default: one's own)")
    doctor.add_argument("--image", help="that the job will use")
    doctor.add_argument("--queue", help="Kueue's local queue that the job will wait in")

    for each in (run, submit):
        each.add_argument(
            "-p",
            "--parameter",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="parameter of the pipeline; @FILE for a file's content; repeatable",
        )
    decided = f"what is decided when compiling: {', '.join(PROFILES)} (default {DEFAULT_PROFILE})"
    compiled.add_argument("--profile", default=DEFAULT_PROFILE, help=decided)
    submit.add_argument("--profile", help=decided)


def _quiet_libraries() -> None:
    """Keep third-party chatter off the console; a user's own setting wins."""
    for name, value in {
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DATASETS_VERBOSITY": "error",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "PYTHONWARNINGS": "ignore",
        "DS_LOG_LEVEL": "error",
    }.items():
        os.environ.setdefault(name, value)


def _without_local_rank(given: list[str]) -> list[str]:
    """Drop the `--local_rank=N` that DeepSpeed's launcher puts before the command.

    The launcher sets LOCAL_RANK to the same number. `torch.distributed.launch` writes it `--local-rank=N`.
    """
    if "LOCAL_RANK" in os.environ and given and re.fullmatch(r"--local[-_]rank=\d+", given[0]):
        return given[1:]
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    given = _without_local_rank(list(sys.argv[1:] if arguments is None else arguments))
    _quiet_libraries()
    # Their parser is made from the trainer's configuration, and lives there.
    from_training_flags = {"train": _train, "cache-videos": _cache_videos, "inspect-prompt": _inspect_prompt}
    if run := from_training_flags.get(given[0] if given else ""):
        with report_errors(given[0]):
            run(given[1:])
        return
    parser = _parser()
    options, unknown = parser.parse_known_args(given)
    if unknown:
        command = parser.commands[options.command]
        behind = "; flags of `rarft train` stand last, after `--`" if options.command == "run" else ""
        command.error(f"unrecognized arguments: {' '.join(unknown)}{behind}")
    with report_errors(options.command):
        options.run(options)


if __name__ == "__main__":
    main()
