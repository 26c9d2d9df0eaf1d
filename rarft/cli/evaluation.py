"""Commands on checkpoints and completions: evaluate, promote, score."""

import json
from typing import Any

from rarft.cli.parser import Commands
from rarft.cli.types import non_negative_int, positive_int
from rarft.rewards.columns import DEFAULT_REWARDS


def _evaluate(out: str, **options: Any) -> None:
    from rarft import steps

    metrics = steps.evaluate(out=out, **options)
    if not metrics:  # the main process reports
        return
    print(steps.format_evaluation(metrics))
    print(f"report: {steps.report_path(out)}")
    steps.check_gates(metrics)


def _predict(as_json: bool, **options: Any) -> None:
    from rarft import steps

    answer = steps.predict(**options)
    print(json.dumps(answer.to_dict(), indent=1) if as_json else answer.to_text())


def _promote(**options: str) -> None:
    from rarft import steps

    print(steps.promote(**options))


def _score(out: str, **options: Any) -> None:
    from rarft import steps

    for name, value in steps.score(out=out, **options).items():
        print(f"{name:<40}" + (f"{value:8.3f}" if value is not None else f"{'-':>8}"))
    print(f"report: {steps.report_path(out)}")


def _compare_runs(runs: list[str], out: str) -> None:
    from rarft import steps

    steps.compare_runs(runs, out)
    print(f"report: {out}")


def _add_evaluate(commands: Commands) -> None:
    parser = commands.add("evaluate", _evaluate, "Evaluate and compare checkpoints or existing predictions.")
    evaluated = parser.add_mutually_exclusive_group(required=True)
    evaluated.add_argument("--checkpoint", help="Checkpoint to evaluate: a folder, Hub name, s3:// URI, or `tiny`.")
    evaluated.add_argument("--predictions", help="predictions.jsonl, or published inference, instead of a checkpoint.")
    parser.add_argument("--data", help="riq.jsonl or its folder; required for checkpoints.")
    parser.add_argument("--out", required=True, help="Folder for predictions.jsonl, metrics.json and report.html.")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="[NAME=]CHECKPOINT_OR_PREDICTIONS",
        help="Candidate to compare with; repeatable. The first is the reference that gates call `base`.",
    )
    parser.add_argument(
        "--backend", default="transformers", help="Generation backend: transformers (default) or vllm."
    )
    parser.add_argument(
        "--endpoint", metavar="URL", help="Server that serves --checkpoint (`vllm serve`) and completes its queries."
    )
    parser.add_argument("--batch-size", type=positive_int, default=16, help="Prompts per batch (default: 16).")
    parser.add_argument(
        "--samples",
        dest="num_samples",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="Sampled completions per query, for the share of refusals (default: 0).",
    )
    parser.add_argument(
        "--threshold-from",
        metavar="DIR",
        help="Evaluation of the same candidates on other data, whose best thresholds of refusal scores are used.",
    )
    parser.add_argument(
        "--max-skipped-videos",
        type=non_negative_int,
        default=10,
        help="Number of unreadable videos to skip; the evaluation fails if more cannot be read (default: 10).",
    )
    parser.add_argument(
        "--embed-clips",
        type=non_negative_int,
        nargs="?",
        const=10,
        default=0,
        metavar="N",
        help="Embed low-resolution videos of the N worst queries of each outcome in the report (default of N: 10).",
    )
    parser.add_argument("--judge-url", help="OpenAI-compatible endpoint of a judge; set OPENAI_API_KEY to its key.")
    parser.add_argument("--judge-model", help="Model of the judge.")
    parser.add_argument("--judge-cache", help="Cache of verdicts (default: in the user's cache folder).")
    parser.add_argument(
        "--judge-prices", nargs=2, type=float, metavar=("IN", "OUT"), help="US dollars per million tokens."
    )
    parser.add_argument(
        "--gate",
        dest="gates",
        action="append",
        default=[],
        metavar="METRIC>=BOUND",
        help="Exit with 1 unless this holds, such as relevance.f1_avg>=0.70 or ra_iou.mean>=base; repeatable.",
    )
    parser.add_argument("--encoder", help="SentenceTransformer name or folder (default: all-MiniLM-L6-v2).")
    parser.add_argument(
        "--in-sample", action="store_const", const=True, help="Label all results as measured on training data."
    )


def _add_predict(commands: Commands) -> None:
    parser = commands.add("predict", _predict, "Answer one query about one video.")
    parser.add_argument("video", help="Path or URI of the video.")
    parser.add_argument("query", help="Description of the moment to find.")
    parser.add_argument("--checkpoint", required=True, help="Checkpoint: a folder, Hub name, s3:// URI, or `tiny`.")
    parser.add_argument(
        "--backend", choices=["transformers", "vllm"], default="transformers", help="Default: transformers."
    )
    parser.add_argument("--endpoint", metavar="URL", help="Server that serves the checkpoint (`vllm serve`).")
    parser.add_argument("--json", dest="as_json", action="store_true", help="Print JSON.")


def _add_promote(commands: Commands) -> None:
    parser = commands.add("promote", _promote, "Copy a checkpoint that passed its gates to its release location.")
    parser.add_argument("--checkpoint", required=True, help="Folder or URI that `rarft train` wrote.")
    parser.add_argument("--evaluation", required=True, help="Folder that `rarft evaluate` wrote.")
    parser.add_argument(
        "--to", dest="destination", required=True, help="Folder or s3:// URI of the release; its content is replaced."
    )


def _add_score(commands: Commands) -> None:
    parser = commands.add("score", _score, "Recompute the rewards of existing completions, term by term.")
    parser.add_argument(
        "predictions", help='JSON Lines with "id" and "completion", or the output of `rarft evaluate`.'
    )
    parser.add_argument("--data", required=True, help="riq.jsonl or its folder.")
    parser.add_argument("--out", required=True, help="Folder for scores.csv and report.html.")
    parser.add_argument(
        "--reward-funcs",
        nargs="+",
        default=DEFAULT_REWARDS,
        help=f"Rewards, as in training (default: {' '.join(DEFAULT_REWARDS)}).",
    )
    parser.add_argument("--reward-weights", nargs="+", type=float, help="One weight per reward (default: 1).")
    parser.add_argument("--correction-baseline", choices=["none", "query"], default="none", help="As in training.")
    parser.add_argument("--encoder", help="SentenceTransformer name or folder (default: all-MiniLM-L6-v2).")
    parser.add_argument("--embeddings", help="Reference embeddings that `rarft embed` wrote.")


def _add_compare_runs(commands: Commands) -> None:
    parser = commands.add("compare-runs", _compare_runs, "Draw the curves of several training runs on the same axes.")
    parser.add_argument(
        "runs", nargs="+", metavar="[NAME=]DIR", help="Folder or s3:// URI of a run, with its training.jsonl."
    )
    parser.add_argument("--out", default="compare-runs.html", help="Page to write (default: compare-runs.html).")


def add_evaluation_commands(commands: Commands) -> None:
    """Add the commands on checkpoints and completions."""
    _add_evaluate(commands)
    _add_predict(commands)
    _add_promote(commands)
    _add_score(commands)
    _add_compare_runs(commands)
