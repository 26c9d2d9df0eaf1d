"""Predictions to compute metrics of."""

from rarft.annotations.schema import Sample, Source, only_segment
from rarft.completion import render_completion
from rarft.evaluation.predictions import Prediction

REFUSAL = render_completion("t", "no such moment")


def prediction(task_type, completion, difficulty, category=None, video="v.mp4", segments=((10.0, 20.0),), **found):
    answerable = task_type == "answerable"
    categories = [category] if isinstance(category, str) else list(category or [])
    sample = Sample(
        id="i", video=video, query="q", task_type=task_type, segments=list(segments) if answerable else [],
        segment=only_segment(segments) if answerable else None,
        duration=30.0, crop=None, gt_answer="a", contrast_answer=None, reference_queries=["r"],
        categories=categories, difficulty=difficulty, captions=[], source=Source("f", 0, 0), extra={},
    )  # fmt: skip
    return Prediction(sample, completion, **{"rewards": {"format": 1.0, "refuse_iou": 0.5}, **found})
