import pytest

from helpers.timed_videos import make_videos


@pytest.fixture(scope="session")
def timed_videos(tmp_path_factory):
    """Videos of each kind whose pixels state their presentation time, by kind."""
    return {video.kind: video for video in make_videos(tmp_path_factory.mktemp("timed"))}
