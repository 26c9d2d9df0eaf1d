"""Temporal segments: closed intervals (start, end) in seconds."""

import math
from collections.abc import Sequence

Segment = tuple[float, float]


def is_valid(segment: Segment) -> bool:
    """Check that both ends are finite and start < end."""
    start, end = segment
    return math.isfinite(start) and math.isfinite(end) and start < end


def temporal_iou(prediction: Segment, truth: Segment) -> float:
    """Return the intersection over union of two segments, in [0, 1]; 0.0 if either is not valid.

    The training guide divides by the hull (from the first start to the last end) instead of the union. Both give the
    same value: for overlapping segments union and hull are equal, for others the intersection is 0.
    """
    if not (is_valid(prediction) and is_valid(truth)):
        return 0.0
    intersection = min(prediction[1], truth[1]) - max(prediction[0], truth[0])
    if intersection <= 0.0:
        return 0.0
    return intersection / (max(prediction[1], truth[1]) - min(prediction[0], truth[0]))


def counted_segments(stated: Sequence[Segment], true: Sequence[Segment]) -> list[Segment]:
    """Return the valid segments of an answer that count: of the first for one true segment, of all for several."""
    return [segment for segment in (stated if len(true) > 1 else stated[:1]) if is_valid(segment)]


def outer_bounds(segments: Sequence[Segment]) -> Segment:
    """Return the first start and the last end."""
    return min(start for start, _ in segments), max(end for _, end in segments)


def _merge(segments: Sequence[Segment]) -> list[Segment]:
    """Return the valid segments in order of time, overlapping ones merged."""
    merged: list[Segment] = []
    for start, end in sorted(segment for segment in segments if is_valid(segment)):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def union_iou(predictions: Sequence[Segment], truths: Sequence[Segment]) -> float:
    """Return the intersection over union of two unions of segments, in [0, 1]; 0.0 if either has no valid segment.

    Of one segment each, it is `temporal_iou`.
    """
    if len(predictions) == len(truths) == 1:
        return temporal_iou(predictions[0], truths[0])
    predicted, true = _merge(predictions), _merge(truths)
    if len(predicted) == len(true) == 1:
        return temporal_iou(predicted[0], true[0])
    intersection, i, j = 0.0, 0, 0
    while i < len(predicted) and j < len(true):
        intersection += max(0.0, min(predicted[i][1], true[j][1]) - max(predicted[i][0], true[j][0]))
        if predicted[i][1] < true[j][1]:
            i += 1
        else:
            j += 1
    union = sum(end - start for start, end in (*predicted, *true)) - intersection
    return intersection / union if 0.0 < union < math.inf else 0.0


def generalized_iou(predictions: Sequence[Segment], truths: Sequence[Segment]) -> float:
    """Return the generalized intersection over union of two unions of segments, in (-1, 1]; -1.0 without valid ones.

    For one segment each, it is IoU - (hull - union) / hull (Rezatofighi et al., CVPR 2019, equation 1), so segments
    that do not overlap get less the farther apart they are. For several, it is `union_iou`, less the gap between their
    outer bounds over the hull.
    """
    if not (_merge(predictions) and _merge(truths)):
        return -1.0
    prediction, truth = outer_bounds(_merge(predictions)), outer_bounds(_merge(truths))
    hull = max(prediction[1], truth[1]) - min(prediction[0], truth[0])
    gap = max(0.0, max(prediction[0], truth[0]) - min(prediction[1], truth[1]))
    return union_iou(predictions, truths) - (1.0 if math.isinf(gap) else gap / hull)
