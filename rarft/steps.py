"""The steps of the pipeline as functions: paths in, paths out.

The command line and the pipeline's components call these and nothing below them. Heavy libraries are imported
where a step needs them, so that validation runs without torch.
"""

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rarft.errors import CheckFailedError, InputError
from rarft.storage.files import Location, existing_folder, join_path, local_path, make_folder, open_local, place_of
from rarft.storage.s3 import is_object_uri, upload


def sample(out: str, videos: dict[str, int], seed: int = 0) -> list[str]:
    """Render the synthetic data set: `out/{split}.json` and its clips, for each split with so many videos.

    Returns:
        The annotation files' paths or URIs; a split of no videos has none.
    """
    from rarft.progress import progress
    from rarft.synthetic.dataset import write_split

    make_folder(out)
    in_store = is_object_uri(out)
    written: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if in_store else local_path(out, "--out")
        for split, count in videos.items():
            if not count:
                continue
            files = write_split(folder, split, count, seed)
            paths = list(progress(files, f"rendering {split}", total=count + 1, unit=" files"))
            if in_store:
                uris = [(join_path(out, str(path.relative_to(folder))), path) for path in paths]
                upload(uris[:-1], "--out")
                upload(uris[-1:], "--out")  # the annotations, once their videos are there
            written.append(join_path(out, paths[-1].name))
    return written


def validate(
    annotations: str,
    out: str,
    video_root: str | None = None,
    *,
    tolerance: float = 1.0,
    probe_videos: bool = True,
    video_cache: str | None = None,
    without_repairs: Sequence[str] = (),
    split: float | None = None,
    seed: int = 0,
    against: str | None = None,
) -> dict[str, Any]:
    """Validate annotations into `out`; returns the report but for its findings, which are in report.json."""
    from rarft.annotations.findings import REPAIRS
    from rarft.annotations.validate import ValidationSettings
    from rarft.annotations.validate import validate as run

    if unknown := sorted(set(without_repairs) - REPAIRS.keys()):
        raise InputError(f"--no-repair {unknown[0]}: no such repair; use one of {', '.join(REPAIRS)}")
    with contextlib.ExitStack() as files:
        return run(
            files.enter_context(open_local(annotations, "annotations")),
            place_of(out, "--out"),
            _video_root(video_root) if video_root else None,
            ValidationSettings(
                tolerance,
                probe_videos,
                local_path(video_cache, "--video-cache") if video_cache else None,
                frozenset(REPAIRS) - set(without_repairs),
                split,
                seed,
                files.enter_context(open_local(against, "--against")) if against else None,
            ),
            beside=annotations.rpartition("/")[0] if is_object_uri(annotations) else None,
        )


def _video_root(uri: str) -> Location:
    return uri if is_object_uri(uri) else existing_folder(uri, "--video-root")


def quarantine_limit(most: str, queries: int) -> float:
    """How many of so many queries may be quarantined.

    Args:
        most: a share such as `5%`, or a number such as `120`.
        queries: in the file.

    Raises:
        InputError: `most` is neither.
    """
    text = most.strip()
    try:
        limit = float(text.removesuffix("%"))
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise InputError(f"--max-quarantine {most}: is neither a share such as 5% nor a number such as 120")
    return limit / 100 * queries if text.endswith("%") else limit


def check_quarantine(counts: dict[str, int], most: str | None) -> None:
    """Hold the number of quarantined queries against what the user accepts.

    Args:
        counts: of the report.
        most: a share such as `5%`, a number such as `120`, or nothing for any number.

    Raises:
        InputError: `most` is neither.
        CheckFailedError: more was quarantined.
    """
    if most and counts["quarantined"] > quarantine_limit(most, counts["queries"]):
        raise CheckFailedError(
            f"{counts['quarantined']} of {counts['queries']} queries were quarantined, more than the accepted {most}; "
            "look into report.html, mend quarantine.jsonl, or accept more"
        )


def embed(data: str, out: str, encoder: str | None = None) -> int:
    """Encode the reference queries of validated data into `out`; returns how many texts were encoded.

    What `out` holds of the same encoder already is not encoded again.
    """
    from rarft.annotations.schema import read_samples
    from rarft.embeddings.build import build_store
    from rarft.embeddings.encoder import SentenceEncoder

    texts = [text for row in read_samples(data, "data") for text in row.reference_queries]
    make_folder(out)
    loaded = SentenceEncoder(encoder) if encoder else SentenceEncoder()
    store, encoded = build_store(texts, out, loaded)
    print(f"{len(store)} distinct reference queries by {loaded.name}, {encoded} of them encoded now", flush=True)
    return encoded


def fingerprint(
    annotations: str,
    video_root: str | None = None,
    eval_annotations: str | None = None,
    eval_video_root: str | None = None,
    encoder: str | None = None,
    packages: Sequence[str] = ("rarft",),
) -> tuple[str, str]:
    """Look at what validation and embedding will read.

    Videos outside of the video roots are known by what the annotations call them alone.

    Args:
        annotations: training annotations, a path or URI.
        video_root: where their videos lie; None for beside them.
        eval_annotations: held-out annotations; None for none.
        eval_video_root: where theirs lie; None for `video_root`, else beside them.
        encoder: SentenceTransformer name or folder; None for the default.
        packages: Python packages that do the work.

    Returns:
        A text that changes when any of it does, or the code that reads it; and one that changes only when a training
        video gets another name or size.
    """
    from rarft.annotations.videos import VideoIndex
    from rarft.storage.fingerprint import fingerprint as together
    from rarft.storage.fingerprint import hash_file, hash_folder, of_distributions, of_packages

    parts = [of_packages(*packages), of_distributions(), annotations, hash_file(annotations, "annotations")]
    training_root = video_root or annotations.rpartition("/")[0]
    roots = {training_root}
    if eval_annotations:
        parts += [eval_annotations, hash_file(eval_annotations, "eval_annotations")]
        roots.add(eval_video_root or video_root or eval_annotations.rpartition("/")[0])
    found = {root: VideoIndex(_video_root(root or "."), must_hold_videos=False) for root in sorted(roots)}
    parts += [videos.fingerprint() for videos in found.values()]
    if encoder and Path(encoder).is_dir():
        parts.append(hash_folder(Path(encoder)))
    return together(parts), found[training_root].content()


def train(arguments: list[str]) -> str:
    """Train with the flags of `rarft train`; returns the final checkpoint's path or URI."""
    from rarft.training.train import train as run

    return run(arguments)


def cache_videos(arguments: list[str]) -> str:
    """Fill the frame cache of a training run with these flags; returns a line that counts."""
    from rarft.training.cache_videos import cache_videos as run

    return run(arguments)


def inspect_prompt(arguments: list[str]) -> str:
    """Describe what the model reads for one query of a training run with these flags, and `--id`."""
    from rarft.training.inspect_prompt import inspect_prompt as run

    return run(arguments)


def _trained(checkpoint: str, settings: dict[str, Any]) -> dict[str, str]:
    """What is handed on of a training run.

    Returns:
        `checkpoint`: the final checkpoint's path or URI; `base`: the model that it was trained from; `content`: what
        changes when the checkpoint does.
    """
    from rarft.checkpoint.locate import CHECKPOINT_JSON
    from rarft.storage.fingerprint import fingerprint as together

    with open_local(join_path(checkpoint, CHECKPOINT_JSON), "checkpoint") as manifest:
        content = together([manifest.read_text(encoding="utf-8")])
    return {"checkpoint": checkpoint, "base": settings["model_name_or_path"], "content": content}


def train_from_yaml(training: str, inputs: dict[str, str | None], out: str) -> dict[str, str]:
    """Train with the flags of one YAML text, and with `inputs`, which win over it; an earlier run is gone on with.

    Returns:
        As of `_trained`.
    """
    from rarft.training.settings_parser import parse_settings, to_arguments, yaml_to_arguments

    resume = to_arguments({"resume_from_checkpoint": "auto"})
    arguments = [*resume, *yaml_to_arguments(training, "training"), *to_arguments({**inputs, "out": out})]
    return _trained(train(arguments), parse_settings(arguments))


def train_on_cluster(
    training: str, inputs: dict[str, str | None], out: str, settings: dict[str, Any]
) -> dict[str, str]:
    """The same by a PyTorchJob on the cluster; `settings` are fields of `rarft.cluster.job_config.Job`.

    Returns:
        As of `_trained`.
    """
    from rarft.cluster.train import train_on_cluster as run

    return _trained(*run(training, inputs, out, settings))


def score(
    predictions: str,
    data: str,
    out: str,
    reward_funcs: Sequence[str] = ("format", "refuse_iou", "explain_correction"),
    reward_weights: Sequence[float] | None = None,
    encoder: str | None = None,
    embeddings: str | None = None,
    correction_baseline: str = "none",
) -> dict[str, float | None]:
    """Replay rewards on finished completions into `out`; returns their means."""
    from rarft.annotations.schema import read_samples
    from rarft.embeddings.encoder import SentenceEncoder
    from rarft.embeddings.store import ReferenceStore
    from rarft.rewards.registry import resolve_rewards
    from rarft.rewards.replay import read_completions, replay

    weights = list(reward_weights or [1.0] * len(reward_funcs))
    if len(weights) != len(reward_funcs):
        raise InputError(f"--reward_weights: {len(weights)} for {len(reward_funcs)} rewards; give one each")
    with open_local(predictions, "predictions") as file:
        rows = read_completions(file, read_samples(data, "--data"))
    place = place_of(out, "--out")
    make_folder(place)
    loaded = SentenceEncoder(encoder) if encoder else SentenceEncoder()
    store = ReferenceStore.load(embeddings, loaded) if embeddings else ReferenceStore.empty(loaded)
    functions = resolve_rewards(list(reward_funcs), store, correction_baseline)
    return replay(rows, dict(zip(reward_funcs, functions, strict=True)), weights, place)


def evaluate(checkpoint: str | None, data: str | None, out: str, **options: Any) -> dict[str, Any]:
    """Evaluate a checkpoint, or finished predictions, into `out`; returns the metrics.

    Args:
        checkpoint: what is evaluated; None where `predictions` are among the options.
        data: validated data.
        out: folder to write into.
        options: the other fields of `rarft.evaluation.evaluate.EvaluationSettings`.
    """
    from rarft.evaluation.evaluate import EvaluationSettings
    from rarft.evaluation.evaluate import evaluate as run

    return run(EvaluationSettings(checkpoint, data, **options), place_of(out, "--out"))


def promote(checkpoint: str, evaluation: str, destination: str) -> str:
    """Copy a checkpoint that passed its gates, with its metrics; returns where to."""
    from rarft.evaluation.promote import promote as run

    return run(checkpoint, place_of(evaluation, "--evaluation"), place_of(destination, "--to"))


def check_gates(metrics: dict[str, Any]) -> None:
    """Hold an evaluation against its gates.

    Raises:
        CheckFailedError: it does not pass; the message says which, and by how much.
    """
    failed = [gate["reason"] for gate in metrics.get("gates", []) if not gate["passed"]]
    if failed:
        raise CheckFailedError(f"{len(failed)} of {len(metrics['gates'])} gates not passed: {'; '.join(failed)}")
