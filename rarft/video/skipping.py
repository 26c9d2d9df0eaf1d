"""Videos that cannot be read: training and evaluation skip them, up to a number."""

import logging
from collections.abc import Mapping

from rarft.errors import CheckFailedError

logger = logging.getLogger(__name__)


class SkippedVideos:
    """The videos that a run could not read.

    Args:
        max_videos: Number of videos that may be skipped.
        flag: Flag that sets it, for the error message.
    """

    def __init__(self, max_videos: int, flag: str) -> None:
        self._max_videos, self._flag = max_videos, flag
        self._reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    def update(self, reasons: Mapping[str, str], is_logged: bool = True) -> None:
        """Add videos with the reasons why they cannot be read, and log the new ones.

        Raises:
            CheckFailedError: More videos are skipped than allowed.
        """
        for video in sorted(reasons.keys() - self._reasons.keys()):
            self._reasons[video] = reasons[video]
            if is_logged:
                logger.warning("video skipped: %s", reasons[video])
        if len(self) > self._max_videos:
            raise CheckFailedError(
                f"unreadable videos: {len(self)}, more than {self._flag} {self._max_videos}: "
                f"{', '.join(sorted(self._reasons))}; repair them, or raise the limit"
            )
