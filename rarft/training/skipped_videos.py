"""Videos that cannot be read during training: skipped, counted over all ranks, and limited in number."""

import logging

from accelerate.utils import gather_object

logger = logging.getLogger(__name__)


class SkippedVideos:
    """The videos that could not be read since the run was started.

    Attributes:
        groups: Indices of this rank's current groups whose video could not be read.
    """

    def __init__(self, max_videos: int) -> None:
        """
        Args:
            max_videos: Number of videos that may fail.
        """
        self._max_videos = max_videos
        self._new: dict[str, str] = {}  # on this rank, since the last `synchronize`: reason by video
        self._all: dict[str, str] = {}  # on all ranks
        self.groups: list[int] = []

    def __len__(self) -> int:
        return len(self._all)

    def add(self, group: int, video: str, reason: str) -> None:
        """Record that the video of a group could not be read on this rank."""
        self.groups.append(group)
        self._new[video] = reason

    def synchronize(self, is_main: bool) -> None:
        """Merge the failures of all ranks, and log the new ones. To be called by all ranks.

        Raises:
            RuntimeError: More videos failed than allowed. It is raised on every rank.
        """
        new: dict[str, str] = {}
        for failed in gather_object([self._new]):
            new |= {video: reason for video, reason in failed.items() if video not in self._all}
        self._new = {}
        self._all |= new
        if is_main:
            for video in sorted(new):
                logger.warning("video skipped: %s", new[video])
        if len(self) > self._max_videos:
            raise RuntimeError(
                f"{len(self)} videos could not be read, more than --max_skipped_videos {self._max_videos}: "
                f"{', '.join(sorted(self._all))}"
            )
