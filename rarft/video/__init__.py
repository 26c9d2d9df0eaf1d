"""Video files: properties, frames by presentation time, and small copies.

`read_frames` needs torch, and is therefore imported on first use.
"""

from typing import Any

from rarft.video.reader import VideoError, VideoInfo, probe

__all__ = ["VideoError", "VideoInfo", "probe", "read_frames"]


def __getattr__(name: str) -> Any:
    if name == "read_frames":
        from rarft.video.decode import read_frames

        return read_frames
    raise AttributeError(name)
