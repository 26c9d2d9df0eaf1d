"""Times that count from the start of a crop: recognition per file, conversion, files that contain only the crop."""

import json
import re

import pytest

from helpers.riq_items import ANSWERABLE, REFUSABLE, item, query, read_lines
from rarft import steps
from rarft.annotations.schema import read_samples
from rarft.errors import InputError
from rarft.video.reader import probe


def cropped(number=0, **changes):
    """Return an item with times that count from its crop, 40 to 50 s."""
    answerable = query(ANSWERABLE, q=f"a dog runs {number}")
    crop = {"video_start": 40, "video_end": 50, "duration": 10.2, "video": f"v{number}.mp4"}
    return item(query_text=f"a dog runs {number}", **{**crop, "GRPO": [answerable, REFUSABLE], **changes})


def absolute(number=0, **changes):
    return cropped(number, **{"timestamp": [41.0, 44.0], "duration": 99.0, **changes})


def segments(rows):
    return [row["segment"] for row in rows if row["task_type"] == "answerable"]


def test_relative_times_are_converted(validate_items):
    """Segments, answers and captions move by the start of the crop; the duration of the crop is dropped."""
    think = "<timestep>3.1 to 4.5</timestep> a dog."
    report, rows, _ = validate_items([cropped(think=think), item(video="whole.mp4")])
    assert segments(rows) == [[41.0, 44.0], [1.0, 4.0]]
    assert (rows[0]["gt_answer"], rows[0]["captions"]) == ("41.00 to 44.00", [[43.1, 44.5, "a dog."]])
    assert (rows[0]["duration"], rows[0]["crop"]) == (None, [40.0, 50.0])
    assert report["codes"]["RIQ115"] == 1
    assert report["counts"]["repaired"] == 2  # both queries of the item


def test_absolute_times_stay(validate_items):
    report, rows, _ = validate_items([absolute(), absolute(1, duration=None)])
    assert segments(rows) == [[41.0, 44.0], [41.0, 44.0]]
    assert not report["codes"].keys() & {"RIQ115", "RIQ116", "RIQ117"}


def test_validated_rows_are_not_converted_again(validate_items, tmp_path):
    _, rows, _ = validate_items([cropped()])
    _, again, _ = validate_items("".join(json.dumps(row) + "\n" for row in rows))
    assert again == rows


@pytest.mark.parametrize(
    ("crop_times", "expected"), [("relative", [[41.0, 44.0], [81.0, 84.0]]), ("absolute", [[1.0, 4.0], [41.0, 44.0]])]
)
def test_setting_decides(crop_times, expected, validate_items):
    """The segment of the other item is outside of its crop, which is only a warning."""
    items = [cropped(), absolute(1, duration=None)]
    _, rows, _ = validate_items(items, crop_times=crop_times)
    assert segments(rows) == expected


def test_mixed_file_is_rejected(validate_items):
    with pytest.raises(InputError, match=re.escape("1 of 3 items with a crop have its length as their duration")):
        validate_items([cropped(), absolute(1), absolute(2)])


def test_exception_in_relative_file_is_quarantined(validate_items):
    """One of 40 items has another duration, so it is unclear what its times count from."""
    report, rows, quarantined = validate_items([*map(cropped, range(39)), absolute(39)])
    assert segments(rows) == [[41.0, 44.0]] * 39
    assert report["reasons"] == {"crop-times-unclear": 2}
    assert [row["timestamp"] for row in quarantined] == [[41.0, 44.0]] * 2


def test_crop_at_the_start_is_no_evidence(validate_items):
    """Its times are the same either way."""
    _, rows, _ = validate_items([cropped(video_start=0, video_end=10), absolute(1)])
    assert segments(rows) == [[1.0, 4.0], [41.0, 44.0]]


def test_several_segments_are_converted(validate_items):
    _, rows, _ = validate_items([cropped(timestamp=[[1, 4], [6, 7.5]])])
    assert rows[0]["segments"] == [[41.0, 44.0], [46.0, 47.5]]


def test_repair_can_be_turned_off(validate_items):
    report, _, quarantined = validate_items([cropped()], repairs=frozenset())
    assert report["counts"]["quarantined"] == 2
    assert quarantined[0]["timestamp"] == [1.0, 4.0]


def test_file_that_contains_only_the_crop(sample_set, tmp_path):
    """The times of the item are those of the file, all of which is inspected."""
    video = next((sample_set / "videos").glob("train_*.mp4"))
    length = round(probe(str(video)).duration, 3)
    cut = cropped(video=str(video), video_end=40 + length, duration=length)
    (tmp_path / "in.json").write_text(json.dumps([cut]))
    report = steps.validate(str(tmp_path / "in.json"), str(tmp_path / "out"))
    assert report["codes"]["RIQ116"] == 1
    answerable, refusable = read_samples(str(tmp_path / "out"))
    assert (answerable.segment, answerable.duration, answerable.crop) == ((1.0, 4.0), length, None)
    assert refusable.crop is None
    assert read_lines(tmp_path / "out" / "quarantine.jsonl") == []
