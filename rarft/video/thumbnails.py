"""Small pictures of a video at given times."""

import io
from collections.abc import Sequence

import av

from rarft.video.probe import VideoError, local_video


def thumbnails(path: str, times: Sequence[float], height: int = 64) -> list[bytes]:
    """JPEG pictures of the frames shown at these times.

    Args:
        path: of the video, or its URI.
        times: seconds; later ones than the end show the last frame.
        height: of a picture, in pixels.

    Raises:
        VideoError: the video cannot be read.
    """
    wanted = sorted(set(times))
    found: dict[float, bytes] = {}
    try:
        with local_video(path) as file, av.open(file, metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            shown = None
            for frame in container.decode(stream):
                while shown is not None and wanted and frame.time is not None and frame.time > wanted[0]:
                    found[wanted.pop(0)] = _jpeg(shown, height)
                shown = frame
                if not wanted:
                    break
            for time in wanted if shown is not None else ():
                found[time] = _jpeg(shown, height)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise VideoError(f"{path}: cannot be decoded: {error}") from error
    if len(found) < len(set(times)):
        raise VideoError(f"{path}: holds not a single frame")
    return [found[time] for time in times]


def _jpeg(frame: av.VideoFrame, height: int) -> bytes:
    picture = frame.to_image()
    picture = picture.resize((max(1, round(picture.width * height / picture.height)), height))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=60)
    return content.getvalue()
