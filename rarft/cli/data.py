"""Commands that make and check data: make-dataset, validate, embed, negatives."""

import logging
from typing import Any

from rarft.annotations.crop_times import CROP_TIMES
from rarft.cli.parser import Commands
from rarft.cli.types import fraction, non_negative_int, positive_int, positive_number, quarantine_limit, seconds
from rarft.errors import InputError
from rarft.negatives.config import DEFAULT_MIX
from rarft.negatives.similarity import DUPLICATE

logger = logging.getLogger(__name__)


def _make_dataset(out: str, seed: int, **videos: int) -> None:
    from rarft import steps

    for path in steps.make_dataset(out, videos, seed):
        print(path)


def _validate(out: str, strict: bool, max_quarantine: str | None, **options: Any) -> None:
    from rarft import steps

    report = steps.validate(out=out, **options)
    print(steps.format_validation(report))
    print(f"report: {steps.report_path(out)}")
    steps.check_quarantine(report["counts"], "0" if strict else max_quarantine)


def _convert(annotations: str, out: str, source_format: str | None, target_format: str | None, **options: Any) -> None:
    from rarft import steps

    if target_format:
        flags = {"--from": source_format, **{f"--{name.replace('_', '-')}": value for name, value in options.items()}}
        if given := [flag for flag, value in flags.items() if value]:
            raise InputError(f"{given[0]}: cannot be combined with --to, which exports validated data; remove it")
        print(steps.format_export(steps.export(annotations, out)))
    else:
        print(steps.format_conversion(steps.convert(annotations, out, source_format or "auto", **options)))
    print(out)


def _embed(**options: Any) -> None:
    from rarft import steps

    steps.embed(**options)


def _negatives(out: str, **options: Any) -> None:
    from rarft import steps

    report = steps.add_negatives(out=out, **options)
    print(steps.format_negatives(report))
    for line in steps.negatives_warnings(report):
        logger.warning("%s", line)
    print(out)
    print(f"report: {steps.negatives_report_path(out)}")
    steps.check_replies(report)


def _add_make_dataset(commands: Commands) -> None:
    parser = commands.add("make-dataset", _make_dataset, "Render a synthetic RIQ dataset with its videos.")
    parser.add_argument("--out", required=True, help="Folder for {train,dev,eval}.json and videos/.")
    for split, default, title in (("train", 300, "training"), ("dev", 0, "development"), ("eval", 60, "held-out")):
        text = f"Videos of the {title} split (default: {default})."
        parser.add_argument(f"--{split}", type=non_negative_int, default=default, help=text)
    parser.add_argument("--seed", type=non_negative_int, default=0, help="Random seed (default: 0).")


def _add_validate(commands: Commands) -> None:
    parser = commands.add("validate", _validate, "Check and repair RIQ annotations without losing a query.")
    parser.add_argument("annotations", help="JSON list or JSON Lines, plain or gzipped; - for standard input.")
    parser.add_argument("--out", required=True, help="Folder for riq.jsonl, quarantine.jsonl and the reports.")
    parser.add_argument("--video-root", help="Folder of the videos (default: same folder as the annotations).")
    parser.add_argument(
        "--tolerance",
        type=seconds,
        default=1.0,
        help="Seconds by which a segment may exceed its video and be clamped (default: 1.0).",
    )
    parser.add_argument(
        "--probe",
        choices=["none", "header", "decode"],
        default="decode",
        help="Decode the frames that training samples, read only the headers of the videos, or do not open them "
        "(default: decode).",
    )
    parser.add_argument(
        "--video-fps",
        type=positive_number,
        default=2.0,
        metavar="N",
        help="Frames per second that training samples (default: 2).",
    )
    parser.add_argument(
        "--video-cache", help="Cache of what is found in videos (default: in the user's cache folder)."
    )
    parser.add_argument(
        "--no-repair",
        dest="without_repairs",
        action="append",
        default=[],
        metavar="NAME",
        help="Repair to turn off (docs/checks.md); repeatable.",
    )
    parser.add_argument(
        "--crop-times",
        choices=CROP_TIMES,
        default="auto",
        help="What times of items with video_start and video_end count from: the start of the video, the start of the "
        "crop, or decided by their durations (default: auto).",
    )
    parser.add_argument("--split", type=fraction, help="Fraction of the queries for training, split by video.")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="Random seed for the split (default: 0).")
    parser.add_argument(
        "--exclude-videos-from", metavar="ANNOTATIONS", help="Annotations whose videos must not occur in these."
    )
    parser.add_argument(
        "--max-quarantine",
        type=quarantine_limit,
        metavar="LIMIT",
        help="Exit with 1 if more queries are quarantined, such as 5%% or 120.",
    )
    parser.add_argument("--strict", action="store_true", help="Exit with 1 if any query is quarantined.")


def _add_convert(commands: Commands) -> None:
    parser = commands.add("convert", _convert, "Convert annotations of other formats to RIQ, or RIQ to ms-swift.")
    parser.add_argument("annotations", metavar="INPUT", help="Annotations in another format; with --to, riq.jsonl.")
    parser.add_argument(
        "--from",
        dest="source_format",
        metavar="FORMAT",
        help="Format of the input (docs/data.md), or path/to/file.py:function (default: auto, which recognizes it).",
    )
    parser.add_argument(
        "--to", dest="target_format", choices=["ms-swift"], help="Export validated data in this format instead."
    )
    parser.add_argument("--out", required=True, help="File to write, as JSON Lines.")
    parser.add_argument(
        "--durations", metavar="FILE", help="JSON or CSV with the durations of videos, for records without one."
    )
    parser.add_argument(
        "--video-root", help="Folder of the videos, to write their paths (default: keep the names of the input)."
    )


def _add_embed(commands: Commands) -> None:
    parser = commands.add("embed", _embed, "Encode the reference queries of validated data.")
    parser.add_argument("data", help="riq.jsonl or its folder.")
    parser.add_argument("--out", required=True, help="Folder for embeddings.safetensors and index.json.")
    parser.add_argument("--encoder", help="SentenceTransformer name or folder (default: all-MiniLM-L6-v2).")


def _add_negatives(commands: Commands) -> None:
    parser = commands.add("negatives", _negatives, "Add refusable queries to answerable ones.")
    parser.add_argument("data", help="riq.jsonl or its folder.")
    parser.add_argument("--out", required=True, help="File to write, as JSON Lines; the report is next to it.")
    parser.add_argument(
        "--per-item", type=positive_int, default=1, metavar="N", help="Queries to add per item (default: 1)."
    )
    parser.add_argument(
        "--mix",
        default=DEFAULT_MIX,
        metavar="KIND=WEIGHT,...",
        help=f"Weights of the kinds shuffled, rules and model (default: {DEFAULT_MIX}).",
    )
    parser.add_argument("--seed", type=non_negative_int, default=0, help="Random seed (default: 0).")
    parser.add_argument("--lexicon", metavar="YAML", help="Swappable words (default: the packaged lexicon).")
    parser.add_argument("--encoder", help="SentenceTransformer name or folder (default: all-MiniLM-L6-v2).")
    parser.add_argument("--embeddings", metavar="DIR", help="Embeddings to reuse and extend (default: next to --out).")
    parser.add_argument(
        "--max-similarity",
        type=fraction,
        default=DUPLICATE,
        help="Drop a query of another video that is at least this similar to a text about the video "
        f"(default: {DUPLICATE}).",
    )
    group = parser.add_argument_group("kind model")
    group.add_argument("--url", help="OpenAI-compatible endpoint; set OPENAI_API_KEY to its key.")
    group.add_argument("--model", help="Model that the endpoint serves.")
    group.add_argument("--cache", help="Cache of replies (default: in the user's cache folder).")
    group.add_argument(
        "--prices", nargs=2, type=float, metavar=("IN", "OUT"), help="US dollars per million tokens; for --max-cost."
    )
    group.add_argument("--max-cost", type=positive_number, metavar="USD", help="Bound of the cost of all replies.")
    group.add_argument(
        "--requests-per-minute", type=positive_number, metavar="N", help="Maximum rate of requests (default: none)."
    )
    group.add_argument("--concurrency", type=positive_int, default=8, help="Simultaneous requests (default: 8).")
    group.add_argument("--timeout", type=positive_number, default=120.0, help="Seconds per request (default: 120).")


def add_data_commands(commands: Commands) -> None:
    """Add the commands that make and check data."""
    _add_make_dataset(commands)
    _add_convert(commands)
    _add_validate(commands)
    _add_embed(commands)
    _add_negatives(commands)
