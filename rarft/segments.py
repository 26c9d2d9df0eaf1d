"""Temporal segments: closed intervals (start, end) in seconds, and how two of them compare."""

import math

Segment = tuple[float, float]


def is_valid(segment: Segment) -> bool:
    """Whether both ends are finite and start < end."""
    start, end = segment
    return math.isfinite(start) and math.isfinite(end) and start < end


def temporal_iou(prediction: Segment, truth: Segment) -> float:
    """Intersection over union of two segments, in [0, 1]; 0.0 if either is reversed, empty or not finite.

    Where the segments meet, their union is their hull; where they do not, the value is 0 whatever the union.
    So the guide's formula, which divides by the hull, and the definition with the true union agree.
    """
    if not (is_valid(prediction) and is_valid(truth)):
        return 0.0
    intersection = min(prediction[1], truth[1]) - max(prediction[0], truth[0])
    if intersection <= 0.0:
        return 0.0
    return intersection / (max(prediction[1], truth[1]) - min(prediction[0], truth[0]))
