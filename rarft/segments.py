"""Temporal segments: closed intervals (start, end) in seconds."""

import math

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


def generalized_iou(prediction: Segment, truth: Segment) -> float:
    """Return the generalized intersection over union of two segments, in (-1, 1]; -1.0 if either is not valid.

    It is IoU - (hull - union) / hull (Rezatofighi et al., CVPR 2019, equation 1), so segments that do not overlap get
    less the farther apart they are.
    """
    if not (is_valid(prediction) and is_valid(truth)):
        return -1.0
    hull = max(prediction[1], truth[1]) - min(prediction[0], truth[0])
    gap = max(0.0, max(prediction[0], truth[0]) - min(prediction[1], truth[1]))
    return temporal_iou(prediction, truth) - (1.0 if math.isinf(gap) else gap / hull)
