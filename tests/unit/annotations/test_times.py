"""Times in fields: every accepted notation, and what is rejected instead of misread."""

import pytest

from rarft.annotations.times import parse_segments, parse_time


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5.0),
        ("12.5", 12.5),
        ("12,5", 12.5),
        ("12,55 s", 12.55),
        (" 12.5 seconds ", 12.5),
        ("0:05", 5.0),
        ("10:20", 620.0),
        ("1:00:12.5", 3612.5),
        ("00:00:07,25", 7.25),
        ("-1.0", -1.0),
        ("1,200", None),
        ("0:5", None),
        ("0:75", None),
        ("1:2:3:4", None),
        ("2 min", None),
        ("soon", None),
        (True, None),
        (None, None),
    ],
)
def test_parse_time(value, expected):
    assert parse_time(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 4], [(1.0, 4.0)]),
        (["1.0", "4"], [(1.0, 4.0)]),
        (["0:05", "10:20"], [(5.0, 620.0)]),
        (["12,5", "17,5"], [(12.5, 17.5)]),
        ([[1, 4]], [(1.0, 4.0)]),
        ([[6, 8], ["1", "4"]], [(6.0, 8.0), (1.0, 4.0)]),
        ("10.0 to 20.0", [(10.0, 20.0)]),
        ("<answer>from 10 to 20 seconds</answer>", [(10.0, 20.0)]),
        ("13.4-28.1", [(13.4, 28.1)]),
        ("12.5s – 17.5s", [(12.5, 17.5)]),
        ("between 3 and 5", [(3.0, 5.0)]),
        ("12,5 to 17,5", [(12.5, 17.5)]),
        ("0:05 to 10:20", [(5.0, 620.0)]),
        ("00:12-00:17", [(12.0, 17.0)]),
        ("1:00:00 to 1:00:10", [(3600.0, 3610.0)]),
        ("1 to 4, 6 to 8", [(1.0, 4.0), (6.0, 8.0)]),
        ("0:01 to 0:04 and 0:06 to 0:08", [(1.0, 4.0), (6.0, 8.0)]),
        ("[10, 20]", [(10.0, 20.0)]),
        ("[[1, 4], [6, 8]]", [(1.0, 4.0), (6.0, 8.0)]),
        ("17 to 12", [(17.0, 12.0)]),
        ("[12,5]", [(12.0, 5.0)]),
        ("12 to 17:30", None),
        (["12", "17:30"], None),
        ("1,200 to 1,300", None),
        ("-5 to 10", None),
        ("1 to 2 minutes", None),
        ("frames 10 to 20", None),
        ("10 to 20%", None),
        ("10 to 20 of 30", None),
        ("1 to 4, 0:06", None),
        ("12,5, 17,5", None),
        ("2020-01-05", None),
        ([1, 2, 3], None),
        ([[1, 4], 6], None),
        ([[1, 4], [6]], None),
        ([], None),
        ("", None),
        ("5", None),
        ("[" * 100_000, None),
        (None, None),
    ],
)
def test_parse_segments(value, expected):
    assert parse_segments(value) == expected
