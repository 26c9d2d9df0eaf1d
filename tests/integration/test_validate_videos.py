"""Validation that opens videos: what it finds in files, its cache, and a validation that is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.annotation_cases import VIDEO_CASES
from helpers.riq_items import item
from helpers.timed_videos import make_unusual_videos, make_videos
from rarft import steps
from rarft.annotations import videos
from rarft.annotations.schema import read_samples
from rarft.video import inspection


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Path of a video by kind."""
    folder = tmp_path_factory.mktemp("videos")
    return {**{video.kind: Path(video.path) for video in make_videos(folder)}, **make_unusual_videos(folder)}


@pytest.fixture
def validate_videos(tmp_path):
    """Function that validates an item for each path; it returns the report with its findings."""

    def run(paths, cache="cache.sqlite", **options):
        items = [item(video=str(path), duration=None, timestamp=[0.1, 1.0]) for path in paths]
        (tmp_path / "in.json").write_text(json.dumps(items))
        steps.validate(
            str(tmp_path / "in.json"), str(tmp_path / "out"), video_cache=str(tmp_path / cache), **options
        )  # fmt: skip
        return json.loads((tmp_path / "out" / "report.json").read_text())

    return run


@pytest.mark.parametrize("kind", VIDEO_CASES)
def test_file_findings(files, validate_videos, kind):
    outcome, text, codes = VIDEO_CASES[kind]
    report = validate_videos([files[kind]])
    found = [finding for finding in report["findings"] if finding["code"].startswith("RIQ2")]
    assert [finding["code"] for finding in found] == codes
    assert all(text in finding["found"] for finding in found)
    assert report["counts"]["quarantined"] == (2 if outcome == "Q" else 0)


def test_header_finds_all_but_damaged_frames(files, validate_videos):
    kinds = [kind for kind in VIDEO_CASES if kind != "narrow"]
    report = validate_videos([files[kind] for kind in kinds], probe="header")
    found = {kind: [] for kind in kinds}
    for finding in report["findings"]:
        if finding["code"].startswith("RIQ2"):
            found[kinds[finding["item"]]].append(finding["code"])
    assert found == {kind: [code for code in VIDEO_CASES[kind][2] if code != "RIQ207"] for kind in kinds}


def test_crop_before_damage(files, tmp_path):
    """Only the frames of an item's crop are decoded for it."""
    crops = [(0.0, 2.0), (2.0, 6.0), (6.2, 8.0)]
    items = [item(video=str(files["hole"]), video_start=start, video_end=end, timestamp=[start, end], duration=8.0)
             for start, end in crops]  # fmt: skip
    (tmp_path / "in.json").write_text(json.dumps(items))
    steps.validate(str(tmp_path / "in.json"), str(tmp_path / "out"), video_cache=str(tmp_path / "cache"))
    findings = json.loads((tmp_path / "out" / "report.json").read_text())["findings"]
    assert [finding["item"] for finding in findings if finding["code"] == "RIQ207"] == [1]


def test_annotated_duration_is_of_the_presentation(files, tmp_path):
    """A start offset, an edit list or a varying rate does not change the duration that annotations mean."""
    durations = {"offset": 3.2, "edit-list": 3.0, "edit-list-delayed": 3.2, "variable": 10.78}
    items = [item(video=str(files[kind]), duration=value, timestamp=[0.1, 1.0]) for kind, value in durations.items()]
    items += [{**one, "duration": one["duration"] + 2} for one in items]
    (tmp_path / "in.json").write_text(json.dumps(items))
    steps.validate(
        str(tmp_path / "in.json"), str(tmp_path / "out"), tolerance=0.01, video_cache=str(tmp_path / "cache")
    )
    findings = json.loads((tmp_path / "out" / "report.json").read_text())["findings"]
    assert [finding["item"] for finding in findings if finding["code"] == "RIQ203"] == [4, 5, 6, 7]


def test_cache_is_by_content(files, validate_videos, tmp_path, monkeypatch):
    """A copy under another name is not decoded, a changed file is, and other settings are."""
    inspected = []
    original = inspection.inspect_video
    monkeypatch.setattr(videos, "_available_cpus", lambda: 1)
    monkeypatch.setattr(
        videos, "inspect_video", lambda path, *rest: inspected.append(Path(path).name) or original(path, *rest)
    )
    first, copy = tmp_path / "first.mp4", tmp_path / "copy.mp4"
    shutil.copy(files["b-frames"], first)
    report = validate_videos([first])
    assert inspected == ["first.mp4"]
    assert validate_videos([first]) == report
    shutil.copy(first, copy)
    os.utime(first, (1, 1))
    validate_videos([first, copy])
    assert inspected == ["first.mp4"]
    shutil.copy(files["hole"], copy)
    assert "RIQ207" in validate_videos([first, copy])["codes"]
    assert inspected == ["first.mp4", "copy.mp4"]
    validate_videos([first], video_fps=4.0)
    assert inspected == ["first.mp4", "copy.mp4", "first.mp4"]


def test_processes_agree(files, validate_videos, monkeypatch):
    """Several processes, forked or spawned, find what one does."""
    paths = list(files.values())
    reports = []
    for number, (cpus, threads) in enumerate([(1, 1), (3, 1), (2, 2)]):
        monkeypatch.setattr(videos, "_available_cpus", lambda cpus=cpus: cpus)
        monkeypatch.setattr(videos.threading, "active_count", lambda threads=threads: threads)
        reports.append(validate_videos(paths, cache=f"{number}.sqlite"))
    assert reports[0] == reports[1] == reports[2]


def test_identity_of_files(files, validate_videos, tmp_path):
    """Rows record the size and hash of their file; validating them without videos keeps it."""
    validate_videos([files["b-frames"]])
    (first, second) = read_samples(str(tmp_path / "out"))
    assert first.video_file == second.video_file
    assert first.video_file.size == files["b-frames"].stat().st_size
    steps.validate(str(tmp_path / "out" / "riq.jsonl"), str(tmp_path / "again"), probe="none")
    rows = [(tmp_path / folder / "riq.jsonl").read_bytes() for folder in ("out", "again")]
    assert rows[0] == rows[1]


@pytest.mark.skipif(sys.platform != "linux", reason="processes end with their parent on Linux")
def test_killed_validation_resumes(files, tmp_path):
    """Videos that were decoded before the kill are found in the cache, and no process survives."""
    clips = []
    for number in range(24):
        clip = tmp_path / f"{number}.mp4"
        clip.write_bytes(files["long-gop"].read_bytes() + bytes([number]))  # same frames, other content
        clips.append(clip)
    (tmp_path / "in.json").write_text(json.dumps([item(video=str(clip), duration=None) for clip in clips]))
    script = """
import sys, time
from rarft import steps
from rarft.annotations import videos
decode = videos.inspect_video
def inspect_slowly(path, crops, fps):
    with open("log", "a") as log:
        log.write(path + "\\n")
    time.sleep(float(sys.argv[1]))
    return decode(path, crops, fps)
videos.inspect_video, videos._available_cpus = inspect_slowly, lambda: 2
steps.validate("in.json", "out", video_cache="cache.sqlite")
"""
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", script, "0.2"], cwd=tmp_path) as process:
        while not log.exists() or len(log.read_text().split()) < 8:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    time.sleep(0.5)
    before = log.read_text().split()
    time.sleep(0.5)
    assert log.read_text().split() == before  # the workers have ended
    subprocess.run([sys.executable, "-c", script, "0"], cwd=tmp_path, check=True)
    after = log.read_text().split()[len(before) :]
    assert set(before) | set(after) == set(map(str, clips))
    assert len(set(before) & set(after)) <= 2  # those that were being decoded
    assert json.loads((tmp_path / "out" / "report.json").read_text())["counts"]["quarantined"] == 0


@pytest.mark.parametrize(("suffix", "rate"), [("mkv", "24000/1001"), ("mkv", "60"), ("flv", "24000/1001")])
def test_times_rounded_to_milliseconds_are_no_damage(tmp_path, validate_videos, suffix, rate):
    path = tmp_path / f"whole.{suffix}"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=Fraction(rate), options={"bf": "2"})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for index in range(100):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 96, 3), 2 * index, np.uint8))))
        output.mux(stream.encode())
    codes = [finding["code"] for finding in validate_videos([path])["findings"]]
    assert [code for code in codes if code.startswith("RIQ2")] == []


def test_video_found_by_name_without_that_repair_is_no_broken_link(tmp_path, files, validate_videos):
    (tmp_path / "below").mkdir()
    shutil.copy(files["two-frames"], tmp_path / "below" / "found.mp4")
    report = validate_videos(["found.mp4"], without_repairs=["find-video-by-name"])
    found = [finding["found"] for finding in report["findings"] if finding["code"] == "RIQ201"]
    assert found == ['video not found: "found.mp4"']
