"""Commands on checkpoints and completions: evaluate, promote, score."""

import argparse

from rarft.cli.parser import Commands
from rarft.cli.types import positive_int


def _evaluate(options: argparse.Namespace) -> None:
    from rarft import steps

    names = (
        "predictions", "compare", "encoder", "backend", "batch_size", "judge_url", "judge_model", "judge_cache"
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
    if not metrics:  # the main process reports
        return
    print(steps.format_evaluation(metrics))
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
    parser.add_argument("--batch-size", type=positive_int, default=16, help="Prompts per batch (default: 16).")
    parser.add_argument("--judge-url", help="OpenAI-compatible endpoint of a judge; set OPENAI_API_KEY to its key.")
    parser.add_argument("--judge-model", help="Model of the judge.")
    parser.add_argument("--judge-cache", help="Cache of verdicts (default: in the user's cache folder).")
    parser.add_argument(
        "--judge-prices", nargs=2, type=float, metavar=("IN", "OUT"), help="US dollars per million tokens."
    )
    parser.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="METRIC>=BOUND",
        help="Exit with 1 unless this holds, such as relevance.f1_avg>=0.70 or ra_iou.mean>=base; repeatable.",
    )
    parser.add_argument("--encoder", help="SentenceTransformer name or folder (default: all-MiniLM-L6-v2).")
    parser.add_argument("--in-sample", action="store_true", help="Label all results as measured on training data.")


def _add_promote(commands: Commands) -> None:
    parser = commands.add("promote", _promote, "Copy a checkpoint that passed its gates to its release location.")
    parser.add_argument("--checkpoint", required=True, help="Folder or URI that `rarft train` wrote.")
    parser.add_argument("--evaluation", required=True, help="Folder that `rarft evaluate` wrote.")
    parser.add_argument("--to", required=True, help="Folder or s3:// URI of the release; its content is replaced.")


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
        default=["format", "refuse_iou", "explain_correction"],
        help="Rewards, as in training (default: format refuse_iou explain_correction).",
    )
    parser.add_argument("--reward-weights", nargs="+", type=float, help="One weight per reward (default: 1).")
    parser.add_argument("--correction-baseline", choices=["none", "query"], default="none", help="As in training.")
    parser.add_argument("--encoder", help="SentenceTransformer name or folder (default: all-MiniLM-L6-v2).")
    parser.add_argument("--embeddings", help="Reference embeddings that `rarft embed` wrote.")


def add_evaluation_commands(commands: Commands) -> None:
    """Add the commands on checkpoints and completions."""
    _add_evaluate(commands)
    _add_promote(commands)
    _add_score(commands)
