"""Notice videos that changed since they were validated: their segments and durations may no longer be right.

Sizes are compared before the model is loaded, contents when a video is first read, since it is read anyway.
"""

from collections.abc import Iterable
from pathlib import Path

from rarft.annotations.schema import Sample, VideoFile
from rarft.errors import InputError
from rarft.models.qwen2_5_vl.prompt_encoder import FrameReader
from rarft.segments import Segment
from rarft.storage.hashing import hash_file
from rarft.storage.s3 import is_object_uri, object_version
from rarft.video.decode import Frames
from rarft.video.reader import VideoError
from rarft.video.sampling import FrameSampling

_ACTION = "run `rarft validate` again"


def recorded_files(samples: Iterable[Sample]) -> dict[str, VideoFile]:
    """Return the size and hash that validation recorded for each video."""
    return {sample.video: sample.video_file for sample in samples if sample.video_file is not None}


def check_sizes(files: dict[str, VideoFile], max_changed: int) -> None:
    """Compare the sizes of local videos with those that validation recorded. Missing ones are reported when read.

    Raises:
        InputError: More sizes differ than videos may be skipped in training.
    """
    sizes = {path: Path(path).stat().st_size for path in files if not is_object_uri(path) and Path(path).is_file()}
    changed = [path for path, size in sizes.items() if size != files[path].size]
    if len(changed) > max_changed:
        path = changed[0]
        others = f", and {len(changed) - 1} other videos" if len(changed) > 1 else ""
        change = f"{files[path].size:,} bytes, now {sizes[path]:,}"
        raise InputError(f"{path}: changed since validation ({change}){others}; {_ACTION}")


class UnchangedVideos:
    """Reader of frames that compares the content of each video when it is first read."""

    def __init__(self, read: FrameReader, files: dict[str, VideoFile]) -> None:
        self._read, self._unchecked = read, dict(files)

    def __call__(self, path: str, sampling: FrameSampling, crop: Segment | None) -> Frames:
        """Return the frames of a video.

        Raises:
            VideoError: The video changed, or cannot be read.
        """
        if file := self._unchecked.get(path):
            if _changed(path, file):
                raise VideoError(f"{path}: its content changed since validation; {_ACTION}")
            self._unchecked.pop(path, None)
        return self._read(path, sampling, crop)


def _changed(path: str, file: VideoFile) -> bool:
    if is_object_uri(path):
        return object_version(path) != f"{file.size} {file.hash}"
    try:
        return hash_file(path) != file.hash
    except OSError:  # reported by the reader
        return False
