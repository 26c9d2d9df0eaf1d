"""Times that count from the start of a crop, and their conversion to times of the whole video.

Some published files give each item the length of its crop as `duration`, and a timestamp that counts from the start of
the crop. If the video's file contains only the crop, these times are already those of the file.
"""

from rarft.segments import Segment

CROP_TIMES = ("auto", "absolute", "relative")

_LENGTH_TOLERANCE_S = 0.5  # between an annotated duration and the length of the crop
_FILE_TOLERANCE_S = 1.0  # between the length of a file and that of the crop


def is_length_of(duration: float, crop: Segment) -> bool:
    """Check whether an annotated duration is the length of the crop."""
    return abs(duration - (crop[1] - crop[0])) <= _LENGTH_TOLERANCE_S


def contains_only(crop: Segment, file_duration: float) -> bool:
    """Check whether a file of this duration contains only the crop, instead of the whole video."""
    length = crop[1] - crop[0]
    return abs(file_duration - length) <= _FILE_TOLERANCE_S and file_duration < crop[1] - _FILE_TOLERANCE_S


def shift(segment: Segment, start: float) -> Segment:
    """Return a segment that counts from the start of a crop in seconds of the whole video, in milliseconds."""
    return round(segment[0] + start, 3), round(segment[1] + start, 3)
