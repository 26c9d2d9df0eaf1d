"""The steps of the pipeline as functions: paths in, paths out.

The command line and the components call only these. A path may be a plain path, a `file://` URI or an `s3://` URI.
Steps import torch and Kubernetes only when they need them, so that validation runs without them.
"""

import contextlib
import json
import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rarft.annotations.annotation_index import video_hashes
from rarft.annotations.crop_times import CROP_TIMES
from rarft.annotations.findings import REPAIRS
from rarft.annotations.formats.convert import Conversion, Converter
from rarft.annotations.formats.convert import convert as convert_file
from rarft.annotations.formats.convert import summary as format_conversion
from rarft.annotations.formats.durations import read_durations
from rarft.annotations.formats.export import export_ms_swift
from rarft.annotations.formats.export import summary as format_export
from rarft.annotations.formats.registry import (
    AUTO,
    RIQ,
    check_format,
    check_is_riq,
    detect_format,
    format_file,
    load_format,
)
from rarft.annotations.parsing import base_name
from rarft.annotations.reader import read_items
from rarft.annotations.schema import RIQ_JSONL, iterate_samples, open_samples, read_samples
from rarft.annotations.split import SPLIT_FILES
from rarft.annotations.validate import REPORT_HTML, ValidationSettings
from rarft.annotations.validate import summary as format_validation
from rarft.annotations.validate import validate as validate_file
from rarft.annotations.video_files import VideoFiles
from rarft.annotations.videos import PROBES, VideoInspector
from rarft.checkpoint.source import CHECKPOINT_JSON, check_checkpoint, checkpoint_fingerprint
from rarft.cluster.doctor import doctor
from rarft.distributed.launch import exit_with_parent
from rarft.distributed.torchrun import run_step
from rarft.errors import CheckFailedError, InputError, input_name
from rarft.evaluation.gates import parse_gate, parse_gates
from rarft.evaluation.model_candidates import parse_candidates, split_name
from rarft.negatives.config import DEFAULT_MIX, NegativeSettings, parse_flags, parse_mix
from rarft.negatives.outputs import EMBEDDINGS, SUFFIX, name_next_to
from rarft.negatives.outputs import REPORT_HTML as NEGATIVES_REPORT
from rarft.negatives.report import summary as format_negatives
from rarft.negatives.report import warnings_of as negatives_warnings
from rarft.negatives.similarity import DUPLICATE
from rarft.progress import progress
from rarft.rewards.columns import DEFAULT_REWARDS
from rarft.storage.files import existing_folder, local_path
from rarft.storage.hashing import hash_distributions, hash_folder_stats, hash_packages, hash_text
from rarft.storage.location import LocalFolder, Location, is_pipe, open_local, parse_location
from rarft.user_cache import cache_folder, find_problem

# Imported for callers of this module.
__all__ = [
    "check_format", "doctor", "format_conversion", "format_export", "format_file", "format_negatives",
    "format_validation", "negatives_warnings", "parse_gates", "run_step", "split_name",
]  # fmt: skip
logger = logging.getLogger(__name__)

CONVERSION_JSON = "conversion.json"
NEGATIVES_PAGE = name_next_to(RIQ_JSONL, NEGATIVES_REPORT)  # in the folder of `add_negatives_from_yaml`
_CONVERTED = {"annotations": "annotations.jsonl", "eval_annotations": "eval_annotations.jsonl"}  # by parameter


def _output(uri: str) -> Location:
    """Return the folder for results, after a check that it is writable."""
    with input_name("--out"):
        location = parse_location(uri)
        location.make()
    return location


def report_path(out: str) -> str:
    """Return the path or URI of the report that a step wrote into a folder."""
    return str(parse_location(out).child(REPORT_HTML))


def make_dataset(out: str, videos: Mapping[str, int], seed: int = 0) -> list[str]:
    """Render the synthetic dataset: `{split}.json` and its clips, with a number of videos per split.

    Returns:
        Paths or URIs of the annotation files; splits without videos are left out.
    """
    from rarft.synthetic.dataset import write_split

    location = _output(out)
    annotations: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = location.path if isinstance(location, LocalFolder) else Path(temporary)
        for split, count in videos.items():
            if not count:
                continue
            written = write_split(folder, split, count, seed)
            paths = list(progress(written, f"rendering {split}", count + 1, unit=" files"))
            if not isinstance(location, LocalFolder):
                location.upload([(path.relative_to(folder).as_posix(), path) for path in paths])
            annotations.append(str(location.child(paths[-1].name)))
    return annotations


def convert(
    annotations: str,
    out: str,
    source_format: str = AUTO,
    *,
    durations: str | None = None,
    video_root: str | None = None,
) -> Conversion:
    """Convert annotations of another format to the RIQ format.

    Args:
        annotations: Annotation file.
        out: File to write, as JSON Lines.
        source_format: Name of the format, `path/to/file.py:function`, or `auto` to recognize it.
        durations: File with the durations of videos, for records without one.
        video_root: Folder of the videos, whose names are replaced by their paths; default: names are kept.

    Returns:
        Counts of the records, queries and conversions.

    Raises:
        InputError: The format is unknown, or no record can be read.
    """
    videos = None
    if video_root:
        with input_name("--video-root"):
            videos = VideoFiles(_video_root(annotations, video_root), require_videos=True)
    return _convert(annotations, out, source_format, durations, videos)


def _convert(
    annotations: str, out: str, source_format: str, durations: str | None, videos: VideoFiles | None
) -> Conversion:
    with _output_file(out) as target, contextlib.ExitStack() as files:
        with input_name("annotations"):
            source = files.enter_context(open_local(annotations))
            found = load_format(source_format, source)
        lengths: dict[str, float] = {}
        if durations:
            with input_name("--durations"):
                lengths = read_durations(files.enter_context(open_local(durations)))
        converter = Converter(found, parse_location(annotations).name, lengths, videos)
        with input_name("annotations"), target.open("wb") as file:
            result = convert_file(source, file, converter)
            if not result.counts["answerable"] + result.counts["refusable"]:
                reason = f" ({result.reasons[0]})" if result.reasons else ""
                raise InputError(
                    f"{annotations}: no query in the format {found.name}{reason}; set another (--from, or -p format)"
                )
    return result


def convert_splits(
    annotations: str,
    eval_annotations: str,
    out: str,
    source_format: str,
    durations: str = "",
    video_root: str = "",
    eval_video_root: str = "",
) -> dict[str, int]:
    """Convert training and held-out annotations into a folder, and write conversion.json, last.

    Files in the RIQ format are left as they are, if the format is `riq` or `auto`. Default video roots are those of
    `validate_splits`.

    Returns:
        Counts of both conversions; those of the held-out annotations begin with `eval_`.
    """
    location = _output(out)
    counts: dict[str, int] = {}
    if source_format != RIQ:
        inputs = ((annotations, video_root), (eval_annotations, eval_video_root or video_root))
        for (name, file), (uri, root) in zip(_CONVERTED.items(), inputs, strict=True):
            if not uri or (source_format == AUTO and _detect(uri) == RIQ):
                continue
            videos = VideoFiles(_video_root(uri, root), require_videos=False)
            result = _convert(uri, str(location.child(file)), source_format, durations or None, videos)
            logger.info("%s: %s", uri, format_conversion(result))
            prefix = name.removesuffix("annotations")
            counts |= {f"{prefix}{key.replace('-', '_')}": count for key, count in result.counts.items()}
    location.write(CONVERSION_JSON, json.dumps({"format": source_format, "counts": counts}).encode())
    return counts


def _detect(annotations: str) -> str:
    with input_name("annotations"), open_local(annotations) as path:
        return detect_format(path)


def export(data: str, out: str) -> dict[str, int]:
    """Write validated data as ms-swift's JSON Lines; return the number of rows, and of rows with a crop."""
    with input_name("annotations"):
        samples = read_samples(data)
    with _output_file(out) as target, target.open("wb") as file:
        return export_ms_swift(samples, file)


@contextlib.contextmanager
def _output_file(uri: str) -> Iterator[Path]:
    """Yield a temporary file, which is moved to `uri` on success; on an error nothing is written."""
    with input_name("--out"):
        location = parse_location(uri)
        if isinstance(location, LocalFolder) and location.path.is_dir():
            raise InputError(f"{uri}: is a folder; give a file, such as {location.child('annotations.jsonl')}")
        location.parent.make()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / location.name
        yield path
        location.parent.upload([(location.name, path)])


def validate(
    annotations: str,
    out: str,
    video_root: str | None = None,
    *,
    probe: str = "decode",
    video_fps: float = 2.0,
    video_cache: str | None = None,
    without_repairs: Sequence[str] = (),
    exclude_videos_from: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Validate annotations.

    Args:
        annotations: Annotation file.
        out: Folder to write to.
        video_root: Folder of the videos; default: the folder of the annotations.
        probe: What to read of the videos: `decode` for the frames that training samples, `header`, or `none`.
        video_fps: Frames per second that training samples.
        video_cache: Cache of what is found in videos; default: in the user's cache folder.
        without_repairs: Names of repairs to skip.
        exclude_videos_from: Annotation file whose videos are excluded.
        settings: Other fields of `rarft.annotations.validate.ValidationSettings`.

    Returns:
        The report without its findings, which are in report.json.
    """
    if probe not in PROBES:
        raise InputError(f"--probe {probe}: must be one of {', '.join(PROBES)}")
    if settings.get("crop_times", CROP_TIMES[0]) not in CROP_TIMES:
        raise InputError(f"--crop-times {settings['crop_times']}: must be one of {', '.join(CROP_TIMES)}")
    if unknown := sorted(set(without_repairs) - REPAIRS.keys()):
        raise InputError(f"--no-repair {unknown[0]}: no such repair; use one of {', '.join(REPAIRS)}")
    settings["repairs"] = frozenset(REPAIRS) - set(without_repairs)
    videos = None
    with contextlib.ExitStack() as files:
        with input_name("annotations"):
            source = files.enter_context(open_local(annotations))
            check_is_riq(source, annotations)
        if probe != "none":
            with input_name("--video-root"):
                found = VideoFiles(_video_root(annotations, video_root), require_videos=video_root is not None)
            with input_name("--video-cache"):
                cache = local_path(video_cache) if video_cache else None
                videos = VideoInspector(found, video_fps if probe == "decode" else None, cache)
        if exclude_videos_from:
            with input_name("--exclude-videos-from"), open_local(exclude_videos_from) as other:
                check_is_riq(other, exclude_videos_from)
                settings["excluded_videos"] = video_hashes(read_items(other))
        with input_name("--out"):
            location = parse_location(out)
        return validate_file(source, location, videos, ValidationSettings(**settings))


def _video_root(annotations: str, video_root: str | None) -> Location:
    if not video_root:
        if is_pipe(annotations):
            raise InputError("required for annotations from a pipe; pass the folder of the videos, or --probe none")
        return parse_location(annotations).parent
    root = parse_location(video_root)
    if isinstance(root, LocalFolder):
        existing_folder(str(root))
    return root


def quarantine_limit(limit: str, queries: int) -> float:
    """Return how many of the queries may be quarantined, for a limit such as `5%` or `120`.

    Raises:
        InputError: The limit is invalid.
    """
    parsed = re.fullmatch(r"(\d*\.?\d+)(%?)", limit.strip())
    if parsed is None:
        raise InputError(f"must be a percentage such as 5% or a number such as 120, not {limit!r}")
    return float(parsed[1]) * (queries / 100 if parsed[2] else 1)


def check_quarantine(counts: dict[str, int], limit: str | None) -> None:
    """Compare the number of quarantined queries with a limit, such as `5%` or `120`; no limit if it is None or empty.

    Raises:
        InputError: The limit is invalid.
        CheckFailedError: More queries are quarantined.
    """
    if not limit:
        return
    with input_name("--max-quarantine"):
        accepted = quarantine_limit(limit, counts["queries"])
    if counts["quarantined"] > accepted:
        raise CheckFailedError(
            f"{counts['quarantined']} of {counts['queries']} queries are quarantined, above the limit of {limit}; "
            "see report.html, fix quarantine.jsonl and validate it again, or raise the limit"
        )


class ValidatedSplits(NamedTuple):
    """Counts of the reports, empty without held-out data, and whether training and evaluation share a video."""

    counts: dict[str, int]
    eval_counts: dict[str, int]
    in_sample: bool


def validate_splits(
    annotations: str,
    out: str,
    eval_annotations: str,
    eval_out: str,
    video_root: str = "",
    eval_video_root: str = "",
    max_quarantine: str = "",
    probe: str = "decode",
    video_fps: float = 2.0,
    crop_times: str = "auto",
    *,
    converted: str = "",
) -> ValidatedSplits:
    """Validate training annotations into `out`, and held-out annotations into `eval_out`.

    Without held-out annotations, `eval_out` gets a copy of the training data. The default video root is the folder of
    the annotations; for held-out annotations it is `video_root`. Files in `converted`, a folder that `convert_splits`
    wrote, are validated instead. Their times are absolute, whatever `crop_times` is.

    Raises:
        InputError: All queries of a file are quarantined.
        CheckFailedError: More queries of a file are quarantined than `max_quarantine` accepts.
    """
    options = (max_quarantine, probe, video_fps)
    source, root, times = _converted("annotations", annotations, video_root, crop_times, converted)
    counts = _validate_split(source, out, root, *options, times)
    if not eval_annotations:
        with parse_location(out).download([RIQ_JSONL]) as folder:
            parse_location(eval_out).upload([(RIQ_JSONL, folder / RIQ_JSONL)])
        return ValidatedSplits(counts, {}, in_sample=True)
    eval_root = eval_video_root or root
    source, root, times = _converted("eval_annotations", eval_annotations, eval_root, crop_times, converted)
    eval_counts = _validate_split(source, eval_out, root, *options, times)
    eval_videos = _video_names(eval_out)
    if shared := _video_names(out) & eval_videos:
        logger.warning(
            "%d of %d evaluation videos are also training videos, such as %s: all metrics are in-sample; "
            "`rarft validate --exclude-videos-from` excludes them",
            len(shared),
            len(eval_videos),
            min(shared),
        )
    return ValidatedSplits(counts, eval_counts, in_sample=bool(shared))


def _converted(name: str, annotations: str, video_root: str, crop_times: str, folder: str) -> tuple[str, str, str]:
    """Return the converted annotations of this name, their video root and crop times; without any, the given ones."""
    if not folder or not parse_location(folder).exists(_CONVERTED[name]):
        return annotations, video_root, crop_times
    root = video_root or str(parse_location(annotations).parent)
    return str(parse_location(folder).child(_CONVERTED[name])), root, "absolute"


def _validate_split(
    annotations: str, out: str, video_root: str, max_quarantine: str, probe: str, video_fps: float, crop_times: str
) -> dict[str, int]:
    report = validate(annotations, out, video_root or None, probe=probe, video_fps=video_fps, crop_times=crop_times)
    logger.info("%s: %s", annotations, format_validation(report))
    counts: dict[str, int] = report["counts"]
    if not counts["accepted"] + counts["repaired"]:
        reasons = ", ".join(f"{number} {name}" for name, number in report["reasons"].items())
        root = video_root or parse_location(annotations).parent
        hint = f"no videos under {root}: pass the video root; " if "video-not-found" in report["reasons"] else ""
        raise InputError(f"{annotations}: all queries are quarantined ({reasons}); {hint}see {report_path(out)}")
    check_quarantine(counts, max_quarantine)
    return counts


def _video_names(data: str) -> set[str]:
    with parse_location(data).download([RIQ_JSONL]) as folder:
        return {base_name(sample.video) for sample in iterate_samples(folder / RIQ_JSONL)}


def embed(data: str, out: str, encoder: str | None = None) -> int:
    """Encode the reference queries of validated data; embeddings in `out` from the same encoder are reused.

    Args:
        data: Validated data.
        out: Folder to write to.
        encoder: Name or folder of a SentenceTransformer; default: all-MiniLM-L6-v2.

    Returns:
        Number of encoded texts.
    """
    from rarft.embeddings.store import build_store

    with input_name("data"):
        texts = [text for row in read_samples(data) for text in row.reference_queries]
    location = _output(out)
    return build_store(texts, location, _load_encoder(encoder))[1]


def _load_encoder(name_or_path: str | None) -> Any:
    from rarft.embeddings.encoder import DEFAULT_ENCODER, SentenceEncoder

    with input_name("--encoder"):
        return SentenceEncoder(name_or_path or DEFAULT_ENCODER)


def add_negatives(
    data: str,
    out: str,
    *,
    per_item: int = 1,
    mix: str = DEFAULT_MIX,
    seed: int = 0,
    lexicon: str | None = None,
    encoder: str | None = None,
    embeddings: str | None = None,
    max_similarity: float = DUPLICATE,
    url: str | None = None,
    model: str | None = None,
    **model_options: Any,
) -> dict[str, Any]:
    """Add refusable queries to the answerable items of validated data.

    Args:
        data: Validated data.
        out: File to write, which ends in `.jsonl`. The report, rejected candidates and embeddings are next to it.
        per_item: Number of queries to add per item with an answerable query.
        mix: Weight of each kind, such as `shuffled=1,rules=1,model=1`.
        seed: Random seed.
        lexicon: YAML file of swappable words; default: the packaged one.
        encoder: Name or folder of a SentenceTransformer; default: all-MiniLM-L6-v2.
        embeddings: Folder of embeddings to reuse and extend; default: next to `out`.
        max_similarity: Similarity to a text about the video from which on a query is dropped as a near duplicate.
        url: OpenAI-compatible endpoint for the kind `model`.
        model: Model that the endpoint serves.
        model_options: Other fields of `rarft.negatives.requests.ModelOptions`.

    Returns:
        The content of report.json.
    """
    from rarft.negatives.build import add_negatives as run
    from rarft.negatives.lexicon import load_lexicon, packaged_lexicon
    from rarft.negatives.requests import ModelOptions

    if (url is None) != (model is None):
        raise InputError("--url, --model: only one is given; pass both")
    with input_name("--mix"):
        weights = parse_mix(mix)
    options = ModelOptions(url, model, **model_options) if url and model else None
    settings = NegativeSettings(per_item, weights, seed, max_similarity, options)
    words = packaged_lexicon()
    if lexicon:
        with input_name("--lexicon"), open_local(lexicon) as file:
            words = load_lexicon(file)
    with input_name("--out"):
        location = _jsonl_output(out)

    def embed_texts(texts: Iterable[str]) -> Any:
        from rarft.embeddings.store import build_store

        with input_name("--embeddings"):
            folder = parse_location(embeddings or name_next_to(str(location), EMBEDDINGS))
        return build_store(texts, folder, _load_encoder(encoder))[0]

    with input_name("data"), open_samples(data) as (path, name):
        if name.endswith(f"/{RIQ_JSONL}") and parse_location(name).parent.exists(SPLIT_FILES["train"]):
            raise InputError(
                f"{name}: split into {' and '.join(SPLIT_FILES.values())}; run it on each of them, so that no query "
                "of one part comes from a video of the other"
            )
        if str(parse_location(name)) == str(location):
            raise InputError(f"{name}: is also --out; write to another file")
        return run(path, name, location, words, settings, embed_texts)


def _jsonl_output(uri: str) -> Location:
    """Return the location of a JSON Lines file to write, after a check that its folder is writable."""
    location = parse_location(uri)
    if not location.name.endswith(SUFFIX) or (isinstance(location, LocalFolder) and location.path.is_dir()):
        raise InputError(f"{uri}: must be a file that ends in {SUFFIX}, such as {location.child(RIQ_JSONL)}")
    location.parent.make()
    return location


def negatives_report_path(out: str) -> str:
    """Return the path or URI of the report that `add_negatives` wrote next to its file."""
    return name_next_to(str(parse_location(out)), NEGATIVES_REPORT)


def parse_negatives(text: str) -> dict[str, Any]:
    """Return arguments of `add_negatives` from its flags as YAML; empty for an empty text.

    Raises:
        InputError: The YAML is invalid, or a flag is unknown or has a wrong type.
    """
    return parse_flags(text)


def add_negatives_from_yaml(data: str, out: str, negatives: str, encoder: str = "") -> int:
    """Add refusable queries with the flags of `rarft negatives` in YAML; copy the data if there are none.

    Args:
        data: Folder of validated data.
        out: Folder for riq.jsonl and its report.
        negatives: The flags.
        encoder: Name or folder of a SentenceTransformer; empty for all-MiniLM-L6-v2.

    Returns:
        Number of added queries.

    Raises:
        CheckFailedError: The model did not reply for some items.
    """
    with input_name("negatives"):
        options = parse_negatives(negatives)
    location = _output(out)
    if not options:
        with parse_location(data).download([RIQ_JSONL, REPORT_HTML]) as folder:
            location.upload([(NEGATIVES_PAGE, folder / REPORT_HTML), (RIQ_JSONL, folder / RIQ_JSONL)])
        return 0
    report = add_negatives(data, str(location.child(RIQ_JSONL)), **{"encoder": encoder or None, **options})
    logger.info("%s", format_negatives(report))
    for line in negatives_warnings(report):
        logger.warning("%s", line)
    check_replies(report)
    added: int = report["counts"]["made"]
    return added


def check_replies(report: dict[str, Any]) -> None:
    """Check that the model replied for all items of `add_negatives`.

    Raises:
        CheckFailedError: It did not; the message gives the first failure.
    """
    model = report["model"]
    if model and model["failed_items"]:
        raise CheckFailedError(
            f"the model did not reply for {model['failed_items']} items ({model['first_failure']}); rerun the same "
            "command to ask for them only"
        )


def fingerprint(
    annotations: str,
    video_root: str = "",
    eval_annotations: str = "",
    eval_video_root: str = "",
    encoder: str = "",
    files: Sequence[str] = (),
    packages: Sequence[str] = ("rarft",),
) -> tuple[str, str]:
    """Return fingerprints of the input of `validate_splits` and `embed`, for caches that only compare paths.

    Videos outside of the video roots count by their name only. The content of `files` and the code of the Python
    packages count, too.

    Returns:
        A text that changes when any input or any code changes, and a text that changes only when the name or size of a
        training video changes.
    """
    parts = [hash_packages(*packages), hash_distributions()]
    inputs = {"annotations": (annotations, video_root)}
    if eval_annotations:
        inputs["eval_annotations"] = (eval_annotations, eval_video_root or video_root)
    roots = []
    for name, (file, root) in inputs.items():
        with input_name(name):
            location = parse_location(file)
            parts += [file, location.parent.version(location.name)]
        with input_name("--video-root"):
            roots.append(_video_root(file, root))
    for file in files:
        location = parse_location(file)
        parts += [file, location.parent.version(location.name)]
    indexes = {root: VideoFiles(root, require_videos=False) for root in sorted(set(roots), key=str)}
    parts += [videos.fingerprint() for videos in indexes.values()]
    if encoder and local_path(encoder).is_dir():
        parts.append(hash_folder_stats(local_path(encoder)))
    return hash_text(*parts), indexes[roots[0]].size_fingerprint()


def parse_compare(text: str) -> list[str]:
    """Split a comma-separated list of checkpoints or predictions, each `[NAME=]CHECKPOINT_OR_PREDICTIONS`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def fingerprint_candidates(compare: Sequence[str]) -> str:
    """Check each `[NAME=]CHECKPOINT_OR_PREDICTIONS` that an evaluation will compare with.

    Returns:
        A text that changes when the content of any of them changes; empty if there are none.

    Raises:
        InputError: One does not exist, or a name is used twice.
    """
    parts = []
    # Stand-ins for the trained checkpoint and its base, whose names are taken.
    for candidate in parse_candidates("tiny", None, ["base=tiny", *compare])[2:]:
        if candidate.is_checkpoint:
            version = checkpoint_fingerprint(candidate.source)
        else:
            location = parse_location(candidate.source)
            version = location.parent.version(location.name)
        parts += [candidate.name, version]
    return hash_text(*parts) if parts else ""


def default_work_dir(out: str) -> Path:
    """Return the local folder, in the user's cache folder, for a run whose output is in a store.

    Raises:
        InputError: The user's cache folder cannot be written.
    """
    folder = cache_folder()
    if (problem := find_problem(folder)) is not None or folder is None:
        raise InputError(f"no local folder to work in ({problem}); pass one")
    return folder / "runs" / hash_text(out)


def train(arguments: list[str]) -> str:
    """Train with the flags of `rarft train`; return the path or URI of the final checkpoint."""
    exit_with_parent()  # before the imports, which take seconds
    from rarft.training.train import train as run

    return run(arguments)


def cache_videos(arguments: list[str]) -> str:
    """Fill the frame cache of a training run with these flags; return a summary line."""
    from rarft.training.cache_videos import cache_videos as run

    return run(arguments)


def inspect_prompt(arguments: list[str]) -> str:
    """Describe the model's input for one query; takes the flags of a training run and `--id`."""
    from rarft.training.inspect_prompt import inspect_prompt as run

    return run(arguments)


def training_inputs(data: str, embeddings: str, encoder: str, videos_fingerprint: str) -> dict[str, str | None]:
    """Return the flags of `rarft train` for the results of the earlier steps; an empty encoder is the default."""
    return {
        "train_data_path": data,
        "embeddings": embeddings,
        "encoder": encoder or None,
        "data_version": videos_fingerprint,
    }


class TrainedCheckpoint(NamedTuple):
    """Path or URI of a checkpoint, the model that was trained, and a text that changes when the checkpoint does."""

    checkpoint: str
    base: str
    cache_key: str


def _trained(checkpoint: str, settings: dict[str, Any]) -> TrainedCheckpoint:
    manifest = parse_location(checkpoint).read(CHECKPOINT_JSON)
    return TrainedCheckpoint(checkpoint, settings["model_name_or_path"], hash_text(manifest.decode()))


def train_from_yaml(training: str, inputs: dict[str, str | None], out: str) -> TrainedCheckpoint:
    """Train into `out` with flags in YAML, which `inputs` override; an earlier run is resumed."""
    from rarft.training.settings_parser import parse_settings, to_arguments, yaml_to_arguments

    resume = to_arguments({"resume_from_checkpoint": "auto"})
    arguments = [*resume, *yaml_to_arguments(training, "training"), *to_arguments({**inputs, "out": out})]
    return _trained(train(arguments), parse_settings(arguments))


def train_on_cluster(
    training: str, inputs: dict[str, str | None], out: str, kind: str, job: dict[str, Any]
) -> TrainedCheckpoint:
    """Train like `train_from_yaml`, but with a job on a cluster.

    Args:
        training: Flags of `rarft train` as YAML.
        inputs: Flags that override `training`.
        out: URI that all nodes can reach.
        kind: `trainjob` or `pytorchjob`.
        job: Fields of `rarft.cluster.job_config.Job`.
    """
    from rarft.cluster.train import train_on_cluster as run

    return _trained(*run(training, inputs, out, kind, job))


def check_training_yaml(text: str, name: str) -> None:
    """Check training settings in YAML; the user knows them by a name, for error messages."""
    from rarft.training.settings_parser import yaml_to_arguments

    arguments = yaml_to_arguments(text, name)
    with input_name(f"{name}:"):
        check_training_flags(arguments)


def check_training_flags(arguments: list[str]) -> None:
    """Check flags of `rarft train`."""
    from rarft.training.setting_values import check_values
    from rarft.training.settings_parser import parse_settings

    check_values(parse_settings(arguments, check_gpus=False))


def score(
    predictions: str,
    data: str,
    out: str,
    reward_funcs: Sequence[str] = DEFAULT_REWARDS,
    reward_weights: Sequence[float] | None = None,
    encoder: str | None = None,
    embeddings: str | None = None,
    correction_baseline: str = "none",
) -> dict[str, float | None]:
    """Replay rewards on finished completions.

    Args:
        predictions: Rows with `completion`, and `id` or the `sample` that `rarft evaluate` writes.
        data: Validated data.
        out: Folder to write to.
        reward_funcs: Names of the rewards.
        reward_weights: Weight of each reward; default: 1.
        encoder: Name or folder of a SentenceTransformer; default: all-MiniLM-L6-v2.
        embeddings: Precomputed embeddings; default: none.
        correction_baseline: Baseline of the correction bonus, "none" or "query".

    Returns:
        Mean of each reward; None where it applies to no completion.
    """
    from rarft.embeddings.store import ReferenceStore
    from rarft.rewards.registry import resolve_rewards
    from rarft.rewards.replay import read_completions, replay

    weights = list(reward_weights or [1.0] * len(reward_funcs))
    if len(weights) != len(reward_funcs):
        raise InputError(f"--reward_weights: {len(weights)} values for {len(reward_funcs)} rewards; give one each")
    with input_name("--data"):
        samples = read_samples(data)
    with input_name("predictions"), open_local(predictions) as file:
        rows = read_completions(file, samples)
    location = _output(out)
    loaded = _load_encoder(encoder)
    store = ReferenceStore(loaded)
    if embeddings:
        with input_name("--embeddings"):
            store = ReferenceStore.load(parse_location(embeddings), loaded)
    with input_name("--reward_funcs"):
        functions = resolve_rewards(list(reward_funcs), store, correction_baseline)
    return replay(rows, dict(zip(reward_funcs, functions, strict=True)), weights, location)


def evaluate(
    checkpoint: str | None,
    data: str | None,
    out: str,
    *,
    predictions: str | None = None,
    compare: Sequence[str] = (),
    gates: Sequence[str] = (),
    **options: Any,
) -> dict[str, Any]:
    """Evaluate a checkpoint or finished predictions, and compare them with others on the same queries.

    Args:
        checkpoint: Checkpoint to evaluate; None with `predictions`.
        data: Validated data: riq.jsonl or its folder. Optional if everything is finished predictions.
        out: Folder to write into.
        predictions: Finished predictions to evaluate.
        compare: Checkpoints or finished predictions to compare with, each `[NAME=]CHECKPOINT_OR_PREDICTIONS`. The
            first is the reference, which gates call `base`.
        gates: Conditions on the metrics, such as `relevance.f1_avg>=0.70` or `ra_iou.mean>=base`.
        options: Other fields of `rarft.evaluation.evaluate.EvaluationOptions`.

    Returns:
        The content of metrics.json; an empty dict on all but the main process.
    """
    from rarft.evaluation.evaluate import EvaluationOptions
    from rarft.evaluation.evaluate import evaluate as run

    candidates = parse_candidates(checkpoint, predictions, compare)
    with input_name("--gate"):
        parsed = [parse_gate(gate, with_base=bool(compare)) for gate in gates]
    settings = EvaluationOptions(gates=parsed, **options)
    with input_name("--data"):
        samples = read_samples(data) if data else None
    return run(candidates, samples, _output(out), settings)


def compare_runs(runs: Sequence[str], out: str) -> None:
    """Draw the curves of training runs on the same axes.

    Args:
        runs: Folders of the runs, each `[NAME=]DIR`. Without a name it is the last part of the path, or all of it if
            other runs have the same last part.
        out: HTML page to write.
    """
    from rarft.evaluation.model_candidates import split_name
    from rarft.reporting.training_curves import render_runs
    from rarft.reporting.training_log import read_log

    named = [split_name(run) for run in runs]
    last_parts = [path.rstrip("/").rpartition("/")[2] for _, path in named]
    logs = {}
    for (name, path), last in zip(named, last_parts, strict=True):
        name = name or (last if last_parts.count(last) == 1 else path)
        if name in logs:
            raise InputError(f"{name}: is given twice; name the runs, as in NAME={path}")
        logs[name] = read_log(parse_location(path))
    note = "Each line is a run: " + ", ".join(f"{name} ({len(log)} entries)" for name, log in logs.items()) + "."
    page = render_runs(logs, f"Comparison of {len(logs)} training runs", note)
    target = local_path(out)
    parse_location(target.parent).make()
    parse_location(target.parent).write(target.name, page.encode())


def predict(
    checkpoint: str, video: str, query: str, *, backend: str = "transformers", endpoint: str | None = None
) -> Any:
    """Answer one query about one video.

    Args:
        checkpoint: Folder, Hub name or URI.
        video: Path or URI of the video.
        query: Text of the query.
        backend: Generation backend on this machine.
        endpoint: URL of a server that serves the checkpoint; it replaces the backend.

    Returns:
        A `rarft.evaluation.answer.Answer`.
    """
    from rarft.evaluation.answer import answer

    with input_name("--checkpoint"):
        check_checkpoint(checkpoint)
    return answer(checkpoint, video, query, backend, endpoint)


def format_evaluation(metrics: dict[str, Any]) -> str:
    """Return the headline metrics of `evaluate` as a table for the console."""
    from rarft.evaluation.report import console_table

    return console_table(metrics)


def headline_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the headline metrics of an evaluation by label; those of the reference end with `, base`."""
    from rarft.evaluation.report import headline_rows

    suffix = " (in-sample)" if metrics["in_sample"] else ""
    values = {}
    for label, value, base, _ in headline_rows(metrics):
        values[f"{label}{suffix}"] = value
        values[f"{label}{suffix}, base"] = base
    return {label: value for label, value in values.items() if value is not None}


def confusion_matrix(metrics: dict[str, Any]) -> list[list[int]]:
    """Return the numbers of relevant and irrelevant queries (rows) by predicted relevance (columns)."""
    counts = metrics["relevance"]["confusion"]
    return [[counts["tp"], counts["fn"]], [counts["fp"], counts["tn"]]]


def promote_if_passed(checkpoint: str, evaluation: str, destination: str, passed: bool) -> str:
    """Promote a checkpoint that passed its gates; return the destination, empty if it was not promoted."""
    if not destination or not passed:
        reason = "the checkpoint did not pass its gates" if destination else "final_uri is not set"
        logger.info("promotion skipped: %s", reason)
        return ""
    logger.info("%s: copying to %s", checkpoint, destination)
    return promote(checkpoint, evaluation, destination)


def promote(checkpoint: str, evaluation: str, destination: str) -> str:
    """Copy a checkpoint that passed its gates, with its metrics, to a release location; return that location."""
    from rarft.evaluation.promote import promote as run

    with input_name("--evaluation"):
        evaluation_folder = parse_location(evaluation)
    with input_name("--to"):
        destination_folder = parse_location(destination)
    return run(checkpoint, evaluation_folder, destination_folder)


def count_skipped_videos(checkpoint: str) -> int:
    """Return the number of unreadable videos in the run that saved a checkpoint, since it was last started."""
    from rarft.reporting.training_log import read_training_log

    counts = [entry["videos/skipped"] for entry in read_training_log(checkpoint) if "videos/skipped" in entry]
    return int(counts[-1]) if counts else 0


def check_gates(metrics: dict[str, Any]) -> None:
    """Check that an evaluation passed its gates.

    Raises:
        CheckFailedError: Gates failed; the message names them and the differences.
    """
    failed = [gate["reason"] for gate in metrics.get("gates", []) if not gate["passed"]]
    if failed:
        raise CheckFailedError(f"{len(failed)} of {len(metrics['gates'])} gates not passed: {'; '.join(failed)}")


def run_pods(run_id: str, namespace: str) -> Any:
    """Return a reader of the pods of a pipeline run; see `rarft.cluster.run_pods.RunPods`.

    Raises:
        InputError: No cluster is configured.
    """
    from rarft.cluster.run_pods import RunPods

    return RunPods(run_id, namespace)


def cancel(job: str, namespace: str | None = None) -> str:
    """Delete a training job, by default in the current namespace; return the namespace.

    Its pods save a checkpoint within their grace period.
    """
    from rarft.cluster.cancel import cancel as run

    return run(job, namespace)
