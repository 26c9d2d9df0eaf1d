"""Data of the explorer in the evaluation report: every query with the results of each candidate, in columns."""

import base64
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from rarft.annotations.schema import UNLABELED
from rarft.evaluation.outcomes import OUTCOMES, classify_outcome
from rarft.evaluation.score_metrics import SCORES
from rarft.evaluation.scored_predictions import ScoredPrediction
from rarft.storage.files import local_path
from rarft.storage.location import LocalFolder, Location
from rarft.storage.s3 import is_object_uri
from rarft.video.clips import encode_clip
from rarft.video.reader import VideoError

logger = logging.getLogger(__name__)


def explorer_texts(candidates: Mapping[str, Sequence[ScoredPrediction]]) -> dict[str, Any]:
    """Return the long texts, which `explorer.js` reads after the rest, by name of the block."""
    samples = [row.prediction.sample for row in next(iter(candidates.values()))]
    texts: dict[str, Any] = {
        "answer": [sample.gt_answer for sample in samples],
        "references": [sample.reference_queries for sample in samples],
    }
    for index, rows in enumerate(candidates.values()):
        texts[f"completion-{index}"] = [row.prediction.completion for row in rows]
    return texts


def explorer_data(
    candidates: Mapping[str, Sequence[ScoredPrediction]], out: Location, clips_per_outcome: int
) -> dict[str, Any]:
    """Return what `explorer.js` reads, except for the long texts.

    Args:
        candidates: Scored predictions by candidate, the evaluated one first, all in the same order of queries.
        out: Folder of the report, which links of videos are relative to.
        clips_per_outcome: Number of queries of each outcome whose videos are embedded, the worst first.
    """
    evaluated = next(iter(candidates.values()))
    samples = [row.prediction.sample for row in evaluated]
    videos = {video: index for index, video in enumerate(dict.fromkeys(sample.video for sample in samples))}
    return {
        "outcomes": OUTCOMES,
        "videos": [{"name": video.rsplit("/", 1)[-1], "href": _link(video, out)} for video in videos],
        "clips": _encode_clips(evaluated, videos, clips_per_outcome) if clips_per_outcome else {},
        "queries": {
            "id": [sample.id for sample in samples],
            "query": [sample.query for sample in samples],
            "video": [videos[sample.video] for sample in samples],
            "difficulty": [sample.difficulty or UNLABELED for sample in samples],
            "categories": [sample.categories for sample in samples],
            "segments": [sample.segments for sample in samples],
            "duration": [sample.duration for sample in samples],
        },
        "candidates": [{"name": name, **_results(rows)} for name, rows in candidates.items()],
    }


def _results(rows: Sequence[ScoredPrediction]) -> dict[str, Any]:
    scores = [_scores(row) for row in rows]
    names = dict.fromkeys(name for row in scores for name, value in row.items() if value is not None)
    return {
        "outcome": [classify_outcome(row)[0] for row in rows],
        "skipped": [row.prediction.skipped for row in rows],
        "segments": [row.completion.segments for row in rows],
        "scores": {name: [_rounded(row.get(name)) for row in scores] for name in names},
    }


def _scores(row: ScoredPrediction) -> dict[str, float | None]:
    """Return the scores of a prediction by name. The parts of a reward `NAME` follow it as `NAME/PART`."""
    prediction = row.prediction
    rewards: dict[str, float | None] = {"reward": sum(prediction.rewards.values())}
    for name, value in prediction.rewards.items():
        parts = {part: number for part, number in prediction.reward_parts.items() if part.startswith(f"{name}/")}
        rewards |= {name: value, **parts}
    return {
        "RA-IoU": row.ra_iou,
        "IoU": row.iou,
        **(rewards if prediction.rewards else {}),
        **{title: getattr(prediction, name) for name, title in SCORES.items()},
        "refusal similarity": prediction.refusal_similarity,
        "correction similarity": prediction.correction_similarity,
        "consistency": prediction.consistency,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _link(video: str, out: Location) -> str | None:
    """Return the address of a video relative to the report; None if a page in that folder cannot open it."""
    if is_object_uri(video) != (not isinstance(out, LocalFolder)):
        return None
    if isinstance(out, LocalFolder):
        target, start = local_path(video).resolve().as_posix(), out.path.resolve().as_posix()
    else:
        target, start = (str(uri).removeprefix("s3://") for uri in (video, out))
        if target.split("/", 1)[0] != start.split("/", 1)[0]:
            return None
    return quote(os.path.relpath(target, start))


def _encode_clips(rows: Sequence[ScoredPrediction], videos: Mapping[str, int], per_outcome: int) -> dict[int, str]:
    """Return base64 of clips by index of the video, for the worst predictions of each outcome."""
    ranked: dict[str, list[tuple[float, str]]] = {}
    for row in rows:
        outcome, severity = classify_outcome(row)
        ranked.setdefault(outcome, []).append((-severity, row.prediction.sample.video))
    chosen = (video for found in ranked.values() for _, video in sorted(found)[:per_outcome])
    return {videos[video]: base64.b64encode(clip).decode() for video, clip in _clips(dict.fromkeys(chosen))}


def _clips(videos: Iterable[str]) -> Iterable[tuple[str, bytes]]:
    for video in videos:
        try:
            yield video, encode_clip(video)
        except VideoError as error:
            logger.warning("--embed-clips: %s", error)
