"""Videos that fail in the middle of training: named, counted on all ranks, and one too many is an error."""

from accelerate.utils import gather_object


class SkippedVideos:
    """What could not be read so far.

    Attributes:
        groups: which of this rank's groups in flight stand for a video that failed.
    """

    def __init__(self, most: int) -> None:
        """
        Args:
            most: videos that may fail from one start of the run to the next.
        """
        self._most = most
        self._seen: dict[str, str] = {}  # by this rank, since ranks last agreed
        self._agreed: dict[str, str] = {}
        self.groups: list[int] = []

    def __len__(self) -> int:
        return len(self._agreed)

    def add(self, group: int, video: str, reason: str) -> None:
        """A group's video failed on this rank."""
        self.groups.append(group)
        self._seen[video] = reason

    def agree(self, is_main: bool) -> None:
        """Bring the ranks' failures together, and name the new ones; every rank must call it.

        Raises:
            RuntimeError: more have failed than may; on every rank alike.
        """
        new: dict[str, str] = {}
        for seen in gather_object([self._seen]):
            new |= {video: reason for video, reason in seen.items() if video not in self._agreed}
        self._seen = {}
        self._agreed |= new
        if is_main:
            for video in sorted(new):
                print(f"training: video skipped: {new[video]}", flush=True)
        if len(self) > self._most:
            raise RuntimeError(
                f"{len(self)} videos could not be read, more than --max_skipped_videos {self._most}: "
                f"{', '.join(sorted(self._agreed))}"
            )
