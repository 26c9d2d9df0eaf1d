"""Files of videos that annotations name in another way, and links."""

import json
import os

import pytest

from helpers.riq_items import item
from rarft import steps
from rarft.annotations.video_files import VideoFiles
from rarft.storage.location import LocalFolder


@pytest.fixture
def find(tmp_path):
    """Function that writes files of these names and finds a video; it returns names under the root."""

    def run(video, *names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(name)
        files = VideoFiles(LocalFolder(tmp_path), require_videos=False)
        return [os.path.relpath(path, tmp_path) for path in files.find(video).paths], files.similar(video)

    return run


@pytest.mark.parametrize(
    ("video", "names", "expected"),
    [
        ("my%20clip.mp4", ["my clip.mp4"], ["my clip.mp4"]),
        ("my clip.mp4", ["my%20clip.mp4"], ["my%20clip.mp4"]),
        ("file:///else/my%20clip.mp4", ["a/my clip.mp4"], ["a/my clip.mp4"]),
        ("100%25.mp4", ["100%.mp4", "100%25.mp4"], ["100%25.mp4"]),
        ("E6DLK", ["videos/E6DLK.mp4"], ["videos/E6DLK.mp4"]),
        ("v_1.2", ["v_1.2.mkv"], ["v_1.2.mkv"]),
        ("E6DLK", ["E6DLK.mp4", "E6DLK.webm"], ["E6DLK.mp4", "E6DLK.webm"]),
        ("a/E6DLK", ["a/E6DLK.mp4", "b/E6DLK.mp4"], ["a/E6DLK.mp4"]),
        ("my%20clip", ["my clip.mp4"], ["my clip.mp4"]),
        ("E6DLK.mp4", ["E6DLK.mkv"], []),
        ("e6dlk.mp4", ["E6DLK.mp4"], []),
        ("\0.mp4", ["a.mp4"], []),
    ],
)
def test_find_other_spellings(find, video, names, expected):
    assert find(video, *names)[0] == expected


@pytest.mark.parametrize(
    ("video", "name", "written"),
    [
        ("Caf\u00e9.mp4", "Cafe\u0301.mp4", '"Cafe\\u0301.mp4", which is written differently'),
        ("Cafe\u0301.mp4", "Caf\u00e9.mp4", '"Caf\\u00e9.mp4", which is written differently'),
        ("e6dlk.MP4", "E6DLK.mp4", '"E6DLK.mp4", which is written differently'),
        ("E6DLK.mp4", "E6DLK.mkv", '"E6DLK.mkv", which is written differently'),
    ],
)
def test_similar_name_is_reported(tmp_path, video, name, written):
    (tmp_path / name).write_text("")
    (tmp_path / "in.json").write_text(json.dumps([item(video=video)]))
    steps.validate(str(tmp_path / "in.json"), str(tmp_path / "out"))
    findings = json.loads((tmp_path / "out" / "report.json").read_text())["findings"]
    (found,) = [finding["found"] for finding in findings if finding["code"] == "RIQ201"]
    assert found == f"video not found: {json.dumps(video)}; there is {written}"


def test_links_to_one_file(tmp_path):
    """Each file is one video, whatever path leads to it, and its own path is used."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "a.mp4").write_text("a")
    (tmp_path / "alias.mp4").symlink_to(real / "a.mp4")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "a.mp4").symlink_to(real / "a.mp4")
    (tmp_path / "again").symlink_to(real)
    (real / "z.mp4").hardlink_to(real / "a.mp4")
    files = VideoFiles(LocalFolder(tmp_path), require_videos=True)
    for video in ("a.mp4", "real/a.mp4", "again/a.mp4", "alias.mp4", "copy/a.mp4", "/else/a.mp4", "real/z.mp4"):
        assert files.find(video).paths == [str(real / "a.mp4")]


def test_links_to_files_elsewhere(tmp_path):
    """A folder of links into another folder, as download caches have it, keeps its names."""
    blobs, root = tmp_path / "blobs", tmp_path / "root"
    blobs.mkdir()
    root.mkdir()
    (blobs / "0123").write_text("a")
    (root / "a.mp4").symlink_to(blobs / "0123")
    assert VideoFiles(LocalFolder(root), require_videos=True).find("else/a.mp4").paths == [str(root / "a.mp4")]


def test_links_that_lead_back(tmp_path):
    """Links to containing folders, to each other and to themselves end the search."""
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "v.mp4").write_text("v")
    (tmp_path / "outside.mp4").write_text("o")
    for number in range(12):
        (root / f"back{number}").symlink_to(root)
        (root / "a" / "b" / f"back{number}").symlink_to(root / "a")
    (root / "up").symlink_to(tmp_path)
    (root / "self").symlink_to(root / "self")
    (root / "self.mp4").symlink_to(root / "self.mp4")
    files = VideoFiles(LocalFolder(root), require_videos=True)
    assert files.find("v.mp4").paths == [str(root / "a" / "v.mp4")]
    assert files.find("outside.mp4").paths == files.find("self.mp4").paths == []
    assert files.fingerprint() == VideoFiles(LocalFolder(root), require_videos=True).fingerprint()


def test_broken_link_is_reported(tmp_path):
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "in.json").write_text(json.dumps([item(video="gone.mp4")]))
    steps.validate(str(tmp_path / "in.json"), str(tmp_path / "out"))
    (finding, *_) = json.loads((tmp_path / "out" / "report.json").read_text())["findings"]
    assert (finding["code"], finding["found"]) == ("RIQ201", 'video not found: "gone.mp4"; it is a broken link')
