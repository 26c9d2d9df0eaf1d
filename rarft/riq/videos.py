"""Where an annotation's video lies, and what it is; each file looked at once."""

import os
from pathlib import Path

from rarft.errors import InputError
from rarft.video.probe import VIDEO_SUFFIXES, VideoError, VideoInfo, probe


class VideoIndex:
    """Finds videos under a root, by their path there or by base name, and probes each at most once."""

    def __init__(self, root: Path, must_hold_videos: bool) -> None:
        """
        Args:
            root: folder that relative paths start from and base names are looked up in.
            must_hold_videos: whether a root without any video is a mistake.

        Raises:
            InputError: the root holds no video although it must.
        """
        self._root = root
        self._by_name: dict[str, Path] = {}
        self._probed: dict[Path, VideoInfo | VideoError] = {}
        for folder, folders, names in os.walk(root, followlinks=True):
            folders.sort()
            for name in sorted(names):
                if Path(name).suffix.lower() in VIDEO_SUFFIXES:
                    self._by_name.setdefault(name, Path(folder) / name)
        if must_hold_videos and not self._by_name:
            suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
            raise InputError(
                f"--video-root {root}: holds no video ({suffixes}); give the folder that the videos lie in"
            )

    def find(self, video: str) -> tuple[Path | None, bool]:
        """The file that `video` means, or None; and whether only its base name led there."""
        name = video.replace("\\", "/").rsplit("/", 1)[-1]
        try:
            for candidate in (
                self._root / video.removeprefix("file://"),
                Path(video.removeprefix("file://")),
            ):
                if candidate.is_file():
                    return candidate, False
        except (OSError, ValueError):  # a name that no file system takes: too long, or with a NUL
            return None, False
        return self._by_name.get(name), True

    def probe(self, path: Path) -> VideoInfo | VideoError:
        """What the file is, or why it cannot be used."""
        if path not in self._probed:
            try:
                self._probed[path] = probe(path)
            except VideoError as error:
                self._probed[path] = error
        return self._probed[path]
