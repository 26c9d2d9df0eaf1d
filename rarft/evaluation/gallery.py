"""Examples of an evaluation for a reader: sorted by kind of failure, the worst first, with pictures of the video."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from rarft.completion import format_segment
from rarft.evaluation.predictions import Prediction
from rarft.evaluation.sample_stats import ScoredPrediction
from rarft.reporting.html import Html
from rarft.segments import Segment, is_valid
from rarft.video.probe import VideoError
from rarft.video.thumbnails import thumbnails

_MOST = 25  # of a kind
_FAR = 0.5  # similarity below which a correction misses
_LOW_IOU = 0.5
_LONGEST = 600.0  # seconds of a video of unknown duration that are looked through for pictures
_SHARES = (0.0, 0.5, 1.0)  # of a segment, at which it is shown
KINDS = {
    "answered": "Answered, though the query does not fit",
    "refused": "Refused, though the query fits",
    "misplaced": f"Right to answer, IoU under {_LOW_IOU:g}",
    "unanswered": "No answer at all",
    "uncorrected": "Right to refuse, the correction missing or far off",
    "right": "Right",
}


@dataclass(frozen=True)
class Example:
    """A prediction with the kind of failure that it is, and how bad it is (1 the worst)."""

    row: ScoredPrediction
    kind: str
    badness: float


def classify_failure(row: ScoredPrediction) -> tuple[str, float]:
    """The kind of failure, and how bad it is."""
    if not row.response.answer:
        return "unanswered", 1.0
    if row.relevant:
        if not row.predicted_relevant:
            return "refused", 1.0
        iou = row.iou or 0.0
        return ("misplaced" if iou < _LOW_IOU else "right"), 1.0 - iou
    if row.predicted_relevant:
        return "answered", 1.0
    similarity = row.prediction.correction_similarity
    if row.prediction.sample.reference_queries and (similarity is None or similarity < _FAR):
        return "uncorrected", 1.0 - (similarity or 0.0)
    return "right", 0.0


def choose(judged: Sequence[ScoredPrediction]) -> tuple[list[Example], dict[str, int]]:
    """The worst of every kind, and how many of each there are."""
    by_kind: dict[str, list[Example]] = {name: [] for name in KINDS}
    for row in judged:
        kind, badness = classify_failure(row)
        by_kind[kind].append(Example(row, kind, badness))
    counts = {name: len(examples) for name, examples in by_kind.items()}
    worst = [sorted(examples, key=lambda one: -one.badness)[:_MOST] for examples in by_kind.values()]
    return [example for examples in worst for example in examples], counts


def _pictures(prediction: Prediction, segments: dict[str, Segment]) -> str:
    """Begin, middle and end of each segment; a note where the video cannot be read."""
    if not segments:
        segments = {"the video": (0.0, prediction.sample.duration or 0.0)}
    last = prediction.sample.duration or _LONGEST
    times = [min(last, start + (end - start) * share) for start, end in segments.values() for share in _SHARES]
    try:
        pictures = thumbnails(prediction.sample.video, times)
    except VideoError as error:
        return f"<p class=note>{escape(str(error))}</p>"
    parts = []
    for index, name in enumerate(segments):
        images = "".join(
            f"<img alt='{time:.2f} s' title='{time:.2f} s' "
            f"src='data:image/jpeg;base64,{base64.b64encode(picture).decode()}'>"
            for time, picture in list(zip(times, pictures, strict=True))[
                len(_SHARES) * index : len(_SHARES) * (index + 1)
            ]
        )
        parts.append(f"<figure><figcaption>{escape(name)}</figcaption>{images}</figure>")
    return f"<div class=strip>{''.join(parts)}</div>"


def _card(example: Example, others: Mapping[str, Prediction]) -> str:
    row, sample = example.row, example.row.prediction.sample
    segments: dict[str, Segment] = {}
    if sample.segment is not None:
        segments[f"true, {format_segment(sample.segment)}"] = sample.segment
    said = row.response.segment
    if said is not None and is_valid(said):
        segments[f"predicted, {format_segment(said)}"] = said
    truth = format_segment(sample.segment) if sample.segment else f"does not fit: {sample.gt_answer}"
    rewards = ", ".join(f"{name} {value:.2f}" for name, value in row.prediction.rewards.items())
    figures = [f"IoU {row.iou:.2f}" if row.iou is not None else "", rewards, ", ".join(sample.categories)]
    beside = "".join(
        f"<p class=note>{escape(name)}: {escape(prediction.completion)}</p>" for name, prediction in others.items()
    )
    return (
        f"<article class=example data-kind={example.kind}><h3>{escape(sample.query)}</h3>"
        f"<p class=note>{escape(sample.video.rsplit('/', 1)[-1])}, {escape(sample.difficulty or sample.task_type)}</p>"
        f"{_pictures(row.prediction, segments)}"
        f"<p><b>truth</b> {escape(truth)}</p><p class=said>{escape(row.prediction.completion)}</p>{beside}"
        f"<p class=note>{escape('; '.join(part for part in figures if part))}</p></article>"
    )


_STYLE = """<style>.kinds { display: flex; flex-wrap: wrap; gap: .4rem; margin: .8rem 0; }
.kinds button { font: inherit; padding: .3rem .7rem; border: 1px solid var(--line); border-radius: 1rem;
background: none; color: inherit; cursor: pointer; } .kinds button[aria-pressed=true] { background: var(--accent);
color: white; } .gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: .8rem; }
.example { background: var(--soft); border-radius: .5rem; padding: .6rem .9rem; overflow-wrap: anywhere; }
.example[hidden] { display: none; } .example h3 { font-size: 1rem; margin: 0; } .example p { margin: .3rem 0; }
.strip { display: flex; gap: .7rem; flex-wrap: wrap; } .strip figcaption { font-weight: 400; font-size: .8rem; }
.strip img { height: 64px; margin-right: 2px; border-radius: 3px; } .said { white-space: pre-wrap; }</style>"""
_SCRIPT = """<script>for (const button of document.querySelectorAll('.kinds button')) button.onclick = () => {
for (const other of document.querySelectorAll('.kinds button')) other.setAttribute('aria-pressed', other === button);
for (const card of document.querySelectorAll('.example')) card.hidden = card.dataset.kind !== button.value; };
document.querySelector('.kinds button').click();</script>"""


def gallery(judged: Sequence[ScoredPrediction], others: Mapping[str, Sequence[ScoredPrediction]]) -> Html:
    """A browser of examples: a button for each kind of failure, the worst first.

    Args:
        judged: predictions against their truths.
        others: what other checkpoints said to the same queries, in the same order, by their names.
    """
    examples, counts = choose(judged)
    place = {id(row): index for index, row in enumerate(judged)}
    buttons = "".join(
        f"<button value={name} aria-pressed=false>{escape(KINDS[name])} ({count:,})</button>"
        for name, count in counts.items()
        if count
    )
    cards = "".join(
        _card(example, {name: rows[place[id(example.row)]].prediction for name, rows in others.items()})
        for example in examples
    )
    note = f"<p class=note>At most {_MOST} of a kind are shown; predictions.jsonl holds all.</p>"
    return Html(f"{_STYLE}<div class=kinds>{buttons}</div>{note}<div class=gallery>{cards}</div>{_SCRIPT}")
