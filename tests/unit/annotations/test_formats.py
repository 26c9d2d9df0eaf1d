"""Conversion from published formats: a small file of each in its published form, and the result by hand."""

import gzip
import io
import json
import re
from pathlib import Path

import msgspec
import pytest

from helpers import published_formats
from helpers.riq_items import read_lines
from rarft import steps
from rarft.annotations.formats.durations import read_durations
from rarft.annotations.formats.export import export_ms_swift, ms_swift_row
from rarft.annotations.formats.registry import FORMATS
from rarft.annotations.schema import read_samples
from rarft.errors import InputError
from rarft.video.reader import probe


def in_json(value):
    return json.dumps(value, indent=1)


def in_lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


def query(video, text, timestamp, duration, fields=None, answerable=True, **provenance):
    """Return the item that a query becomes, without the format and the file of its provenance."""
    segments = timestamp if timestamp and isinstance(timestamp[0], list) else [timestamp] if timestamp else []
    answer = ", ".join(f"{float(start):.2f} to {float(end):.2f}" for start, end in segments)
    crop = provenance.pop("crop", None)
    item = {
        "video": video,
        "query_text": text,
        "timestamp": timestamp,
        "duration": duration,
        "GRPO": [{"q": text, "a": f"<answer>{answer}</answer>" if answer else "", "r": answerable}],
        "provenance": {**provenance, **({"fields": fields} if fields else {})},
    }
    return item | ({"video_start": crop[0], "video_end": crop[1]} if crop else {})


def unreadable(reason, value, **provenance):
    return {"unreadable": reason, "record": value, "provenance": provenance}


WINDOWS = {"qid": 3, "query": "a kite rises", "duration": 150, "vid": "k1_60.0_210.0"}
CROPPED = {
    "video": "./videos/m.mp4", "duration": 30.5, "timestamp": [2.5, 8.25], "sentence": "a man waves",
    "video_start": 40.0, "video_end": 70.5, "difficulty": 41.5, "qid": "my|m", "pred": [0.0, 9.0],
}  # fmt: skip
WHOLE = {**CROPPED, "duration": 93.0, "video_start": None, "video_end": None}
BENCH = {
    "path": "./v/t.mp4", "question": "a door opens", "answer": "13.4-28.1", "start": None, "end": None,
    "duration": 30.12, "qsemtype": "Human Pose", "bins": {"videolen": 1},
}  # fmt: skip
TRUTH = {"sentence": "a boy jumps", "id": "AAAAA-0000", "timestamp": [1.5, 3], "no_answer": False}
ABSENT = {"sentence": "a girl swims", "id": "BBBBB-1000", "timestamp": [], "no_answer": True}
EVENT = {"query": "a cup falls", "span": [[1.0, 2.0], [5.0, 6.5]]}


def chat(user, assistant=None, **columns):
    messages = [{"role": "user", "content": f"<video>{user}"}]
    messages += [{"role": "assistant", "content": assistant}] if assistant else []
    return {"messages": messages, "videos": ["a.mp4"], **columns}


TURNS = chat("a dog barks", "[[38.0, 41.0]]")
TURNS["messages"] = [{"role": "system", "content": "x"}, *TURNS["messages"], {"role": "user", "content": "a cow moos"}]

# Name: format, content of the file, items without format and file of the provenance.
CASES = {
    "charades-sta": (
        "charades-sta",
        "AO8RW 0.0 6.9##a person reads a book.\n\nAO8RW 3 x##a # sign##twice.\nnot a line\n",
        [
            query("AO8RW", "a person reads a book.", ["0.0", "6.9"], 33.7, record=0),
            {
                **query("AO8RW", "a # sign##twice.", [], 33.7, record=1),
                "timestamp": ["3", "x"],
            },
            unreadable("not a line VIDEO START END##QUERY", "not a line", record=2),
        ],
    ),
    "activitynet-captions": (
        "activitynet-captions",
        in_json(
            {
                "v_x": {"duration": 82.7, "timestamps": [[0.8, 19.9], [3, 2]], "sentences": ["A dog", " It sits"]},
                "v_y": {"duration": 9.0, "timestamps": [[1, 2]], "sentences": ["a", "b"], "fps": 30},
                "v_z": {"timestamps": [[1, 2]], "sentences": ["a"], "fps": 30},
            }
        ),
        [
            query("v_x", "A dog", [0.8, 19.9], 82.7, record="v_x", query=0),
            query("v_x", " It sits", [3, 2], 82.7, record="v_x", query=1),
            unreadable(
                "1 timestamps, but 2 sentences",
                {"duration": 9.0, "timestamps": [[1, 2]], "sentences": ["a", "b"], "fps": 30},
                record="v_y",
            ),
            query("v_z", "a", [1, 2], 7.5, {"fps": 30}, record="v_z"),
        ],
    ),
    "qvhighlights": (
        "qvhighlights",
        in_lines(
            {**WINDOWS, "relevant_windows": [[118, 136]], "saliency_scores": [[1, 2, 4]]},
            {**WINDOWS, "relevant_windows": [[0, 6], [12, 16]]},
            {**WINDOWS, "query": "a plane rises", "relevant_windows": []},
            {**WINDOWS, "query": "a ship rises", "relevant_windows": [[0, 0]]},
            WINDOWS,
            {**WINDOWS, "relevant_windows": None},
        ),
        [
            query(
                "k1_60.0_210.0", "a kite rises", [118, 136], 150, {"qid": 3, "saliency_scores": [[1, 2, 4]]}, record=0
            ),
            query("k1_60.0_210.0", "a kite rises", [[0, 6], [12, 16]], 150, {"qid": 3}, record=1),
            query("k1_60.0_210.0", "a plane rises", [], 150, {"qid": 3}, answerable=False, record=2),
            query("k1_60.0_210.0", "a ship rises", [], 150, {"qid": 3}, answerable=False, record=3),
            unreadable("no field relevant_windows", WINDOWS, record=4),
            unreadable("relevant_windows is not a list", {**WINDOWS, "relevant_windows": None}, record=5),
        ],
    ),
    "ratsg": (
        "ratsg",
        in_json(
            {
                "AAAAA": {"sts": [TRUTH, ABSENT, {"sentence": "no label", "timestamp": []}], "duration": 12.5},
                "EMPTY": {"sts": [], "duration": 3},
            }
        ),
        [
            query("AAAAA", "a boy jumps", [1.5, 3], 12.5, {"id": "AAAAA-0000"}, record="AAAAA", query=0),
            query(
                "AAAAA", "a girl swims", [], 12.5, {"id": "BBBBB-1000"}, answerable=False, record="AAAAA", query=1
            ),
            unreadable(
                "sts[2]: not a sentence with a timestamp and no_answer",
                {"sentence": "no label", "timestamp": []},
                record="AAAAA",
                query=2,
            ),
        ],
    ),
    "timelens-bench": (
        "timelens-bench",
        in_json({"c1": {"duration": 20, "spans": [[1, 2], [[3, 4], [7, 9]]], "queries": ["a", "b"], "source": "s"}}),
        [
            query("c1", "a", [1, 2], 20, {"source": "s"}, record="c1", query=0),
            query("c1", "b", [[3, 4], [7, 9]], 20, {"source": "s"}, record="c1", query=1),
        ],
    ),
    "timelens": (
        "timelens",
        in_lines(
            {"video_path": "d/a.mp4", "duration": 40.5, "source": "didemo", "events": [EVENT, {"query": "no span"}]},
            {"video_path": "d/b.mp4", "duration": 9, "query": "a cup falls", "span": [3, 4], "iou": 0.25},
            {"video_path": "d/c.mp4", "events": None},
        ),
        [
            query("d/a.mp4", "a cup falls", [[1.0, 2.0], [5.0, 6.5]], 40.5, {"source": "didemo"}, record=0, query=0),
            unreadable("events[1]: not a query with a span", {"query": "no span"}, record=0, query=1),
            query("d/b.mp4", "a cup falls", [3, 4], 9, {"iou": 0.25}, record=1),
            unreadable("events is not a list", {"video_path": "d/c.mp4", "events": None}, record=2),
        ],
    ),
    "time-r1": (
        "time-r1",
        in_json([CROPPED, WHOLE, {**CROPPED, "duration": 93.0}, {**CROPPED, "video_end": None}]),
        [
            query(
                "./videos/m.mp4", "a man waves", [42.5, 48.25], 99.0,
                {"difficulty": 41.5, "qid": "my|m", "pred": [0.0, 9.0]}, crop=(40.0, 70.5), record=0,
                conversion="crop-times-to-video-times",
                original={"segments": [[2.5, 8.25]], "duration": 30.5, "crop": [40.0, 70.5]},
            ),
            query(
                "./videos/m.mp4", "a man waves", [2.5, 8.25], 93.0,
                {"difficulty": 41.5, "qid": "my|m", "pred": [0.0, 9.0]}, record=1,
            ),
            unreadable(
                "duration 93 is not the length of the crop [40.0, 70.5], which times count from",
                {**CROPPED, "duration": 93.0}, record=2,
            ),
            unreadable("the crop is [40.0, null], which times count from", {**CROPPED, "video_end": None}, record=3),
        ],
    ),
    "tvgbench": (
        "tvgbench",
        in_json(
            [
                BENCH,
                {**BENCH, "start": 57.77, "end": 102.48, "duration": 44.71, "answer": "9.67-13.81"},
                {**BENCH, "answer": "soon"},
            ]
        ),
        [
            query(
                "./v/t.mp4", "a door opens", ["13.4", "28.1"], 30.12,
                {"qsemtype": "Human Pose", "bins": {"videolen": 1}}, record=0,
            ),
            query(
                "./v/t.mp4", "a door opens", [67.44, 71.58], None,
                {"qsemtype": "Human Pose", "bins": {"videolen": 1}}, crop=(57.77, 102.48), record=1,
                conversion="crop-times-to-video-times",
                original={"segments": [["9.67", "13.81"]], "duration": 44.71, "crop": [57.77, 102.48]},
            ),
            unreadable("answer is 'soon', not START-END in seconds", {**BENCH, "answer": "soon"}, record=2),
        ],
    ),
    "ms-swift": (
        "ms-swift",
        in_lines(
            chat("a bird sings", "<answer>1.5 to 4</answer>"),
            chat("Find: x", "ok", query="a bird sings", solution=[2, 3], duration=8.5, level=1),
            chat("a bird sings", solution=[[2, 3], [5, 6]]),
            chat("a fish sings", "<answer>Fish are silent.</answer>"),
            chat("a fish sings", solution=[], task_type="refusable"),
            chat("a fish sings"),
            chat("a fish sings", "It sings from 5.0s to 8.5s."),
            chat("a bird sings", "00:12 - 00:17"),
            TURNS,
            {**chat("two"), "videos": ["a.mp4", "b.mp4"]},
        ),
        [
            query("a.mp4", "a bird sings", [1.5, 4.0], None, record=0),
            query("a.mp4", "a bird sings", [2, 3], 8.5, {"level": 1}, record=1),
            query("a.mp4", "a bird sings", [[2, 3], [5, 6]], None, record=2),
            {
                **query("a.mp4", "a fish sings", [], None, answerable=False, record=3),
                "GRPO": [{"q": "a fish sings", "a": "<answer>Fish are silent.</answer>", "r": False}],
            },
            query("a.mp4", "a fish sings", [], None, {"task_type": "refusable"}, answerable=False, record=4),
            unreadable("neither a solution nor an assistant's message", chat("a fish sings"), record=5),
            unreadable(
                "the answer states times in a form that cannot be read",
                chat("a fish sings", "It sings from 5.0s to 8.5s."),
                record=6,
            ),
            query("a.mp4", "a bird sings", [12.0, 17.0], None, record=7),
            query("a.mp4", "a dog barks", [38.0, 41.0], None, record=8, query=0),
            unreadable(
                "turn 1: neither a solution nor an assistant's message",
                {"user": "a cow moos", "assistant": None},
                record=8,
                query=1,
            ),
            unreadable("2 videos, not one", {**chat("two"), "videos": ["a.mp4", "b.mp4"]}, record=9),
        ],
    ),
}  # fmt: skip
DURATIONS = {"AO8RW": 33.7, "v_z": {"duration": 7.5}, "m": 99}


def convert(folder, content, source_format="auto", **options):
    """Convert a file; return the counts and the items."""
    source, out = folder / "in.txt", folder / "out.jsonl"
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = steps.convert(str(source), str(out), source_format, **options)
    return result, read_lines(out)


def test_every_format_is_tested():
    assert {source_format for source_format, *_ in CASES.values()} == FORMATS.keys()


@pytest.mark.parametrize("source_format", ["named", "auto"])
@pytest.mark.parametrize("name", CASES)
def test_format(name, source_format, tmp_path):
    expected_format, content, expected = CASES[name]
    (tmp_path / "durations.json").write_text(json.dumps(DURATIONS))
    result, items = convert(
        tmp_path,
        content,
        expected_format if source_format == "named" else "auto",
        durations=str(tmp_path / "durations.json"),
    )
    for item in expected:
        item["provenance"] = {"format": expected_format, "file": "in.txt", **item["provenance"]}
    assert items == expected
    assert result.format == expected_format
    assert result.counts["unreadable"] == sum("unreadable" in item for item in expected)
    assert result.counts["refusable"] == sum(item.get("GRPO", [{"r": True}])[0]["r"] is False for item in expected)
    assert result.counts["answerable"] + result.counts["refusable"] + result.counts["unreadable"] == len(expected)


def test_conversion_is_accounted_for_by_validation(tmp_path):
    """Each query and each unreadable record of a conversion is accepted, repaired or quarantined."""
    for name, (source_format, content, expected) in CASES.items():
        convert(tmp_path, content, source_format)
        report = steps.validate(str(tmp_path / "out.jsonl"), str(tmp_path / name), probe="none")
        assert report["counts"]["queries"] == len(expected)
        quarantined = read_lines(tmp_path / name / "quarantine.jsonl")
        reasons = [row["unreadable"] for row in quarantined if "unreadable" in row]
        assert reasons == [item["unreadable"] for item in expected if "unreadable" in item]
        kept = read_lines(tmp_path / name / "riq.jsonl")
        assert len(kept) + len(quarantined) == len(expected)
        assert {row["extra"]["provenance"]["format"] for row in kept} == {source_format}


@pytest.mark.parametrize("name", CASES)
def test_validation_names_the_format(name, main, tmp_path):
    """Validation of a file in another format writes nothing and names the format in its one line."""
    source_format, content, _ = CASES[name]
    (tmp_path / "in.txt").write_text(content)
    code, output, errors = main("validate", "in.txt", "--probe", "none", "--out", "out", "--quiet")
    assert (code, output) == (2, "")
    assert errors == (
        f"rarft validate: annotations in.txt: is in the format {source_format}, not RIQ; "
        f"convert it with `rarft convert`, or set -p format={source_format}\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: gzip.compress(text.encode()),
    ],
)
def test_file_encodings(encode, tmp_path):
    """A byte order mark, UTF-16 and gzip change nothing."""
    for source_format, content, _ in CASES.values():
        _, expected = convert(tmp_path, content)
        assert convert(tmp_path, encode(content))[1] == expected, source_format


def test_crop_that_is_the_whole_file(tmp_path, sample_set):
    """A file as long as the crop contains only the crop, so that its times are already those of the file."""
    video = next((sample_set / "videos").glob("train_*.mp4"))
    length = round(probe(str(video)).duration, 3)
    record = {**CROPPED, "video": f"elsewhere/{video.name}", "timestamp": [0.5, 1.5]}
    cut = {**record, "video_start": 40.0, "video_end": 40.0 + length, "duration": length}
    whole = {**record, "video_start": 1.0, "video_end": 3.0, "duration": 2.0}
    result, (first, second) = convert(tmp_path, in_json([cut, whole]), video_root=str(sample_set / "videos"))
    assert first["video"] == second["video"] == str(video)
    assert (first["timestamp"], first["duration"], "video_start" in first) == ([0.5, 1.5], length, False)
    assert (second["timestamp"], second["duration"], second["video_start"]) == ([1.5, 2.5], None, 1.0)
    assert first["provenance"]["conversion"] == "file-is-crop"
    assert result.counts["crop-times-to-video-times"] == result.counts["file-is-crop"] == 1


def test_malformed_line(tmp_path):
    """A malformed line of JSON Lines is counted and quarantined; the others are converted."""
    content = in_lines({**WINDOWS, "relevant_windows": [[1, 2]]}) * 2 + '{"qid": 3, "que\n'
    result, items = convert(tmp_path, content)
    assert (result.counts["answerable"], result.counts["unreadable"]) == (2, 1)
    assert items[2]["record"] == '{"qid": 3, "que'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty file"),
        ("a\nb\n", "format not recognized; set it (--from, or -p format) to activitynet-captions, charades-sta, "),
        (in_lines({**chat("a", "b"), **WINDOWS}), "may be ms-swift or qvhighlights; set the format (--from, "),
        (in_json([CROPPED, BENCH]), "may be time-r1 or tvgbench"),
        ("a b c##d\n" + "?\n" * 9, "may be charades-sta; set the format"),
        (in_json([{"video": "a.mp4", "GRPO": []}]), "is in the RIQ format already; use `rarft validate`"),
        ('{"v_x": {"timestamps": [[1, 2', "truncated or invalid JSON"),
        ('{"v_x": {"sts": []}, "v_x": {"sts": []}}', "key 'v_x' occurs twice"),
        (in_json([{**CROPPED, "video": 1, "sentence": 2}, 7])[:-5], "truncated or invalid JSON list"),
    ],
)  # fmt: skip
def test_file_is_rejected(content, message, tmp_path):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        convert(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_wrong_format_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"no query in the format tvgbench \(record 0: no field path: .*--from"):
        convert(tmp_path, in_json([CROPPED]), "tvgbench")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("content", "durations"),
    [
        ('{"a": 3, "b.mp4": {"duration": "4.5"}}', {"a": 3.0, "b": 4.5}),
        ("id,subject,length\nAO8RW,X,33.67\nb,Y,4\n", {"AO8RW": 33.67, "b": 4.0}),
        ('video,duration\n"d/a,b.mp4",2.5\n', {"a,b": 2.5}),
    ],
)
def test_durations(content, durations, tmp_path):
    (tmp_path / "durations").write_text(content)
    assert read_durations(tmp_path / "durations") == durations


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "contains no durations"),
        ("a,b\n1,2\n", "contains no durations"),
        ('{"a": -1}', "a: -1 is not a duration in seconds"),
        ('{"a": 1', "invalid JSON"),
        ("id,length\na,1\nb,x\n", "line 3: 'x' is not a duration"),
        ("id,length\na,1\na,2\n", "line 3: a has another duration before"),
    ],
)
def test_durations_are_rejected(content, message, tmp_path):
    (tmp_path / "durations").write_text(content)
    with pytest.raises(InputError, match=re.escape(message)):
        read_durations(tmp_path / "durations")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("charades", "no such format"),
        ("missing.py:read", "no such file missing.py"),
        ("own.py:other", "no function other in .*own.py; use one of read"),
        ("own.py:two", "must take one argument, a record"),
    ],
)
def test_format_is_rejected(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("def read(record): ...\ndef two(a, b): ...\n")
    with pytest.raises(InputError, match=message):
        convert(tmp_path, "x\n", name)


def test_own_format_that_fails(tmp_path, monkeypatch):
    """An error in the user's function is counted like an unreadable record."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "from rarft.annotations.formats.record import Query\n"
        "def read(record):\n"
        "    video, text, start, end = record.value.split(';')\n"
        "    return [Query(video=video, text=text, segments=[[1 / float(start), end]])]\n"
    )
    result, items = convert(tmp_path, "a;b;2;3\na;b;0;3\na\n", "own.py:read")
    assert [item.get("timestamp") for item in items] == [[0.5, "3"], None, None]
    assert [item.get("unreadable") for item in items][1:] == [
        "ZeroDivisionError: float division by zero", "not enough values to unpack (expected 4, got 1)"
    ]  # fmt: skip
    assert result.counts["unreadable"] == 2


def test_export_to_ms_swift(validated, tmp_path):
    """The rows contain the video, the query, the truth and the answer, and convert back to the same queries."""
    samples = read_samples(str(validated))
    assert steps.export(str(validated), str(tmp_path / "swift.jsonl"))["rows"] == len(samples)
    rows = read_lines(tmp_path / "swift.jsonl")
    for row, sample in zip(rows, samples, strict=True):
        user, assistant = row["messages"]
        assert user["content"].startswith("<video>")
        assert f'"{sample.query}"' in user["content"]
        assert assistant == {"role": "assistant", "content": f"<answer>{sample.gt_answer}</answer>"}
        assert row["videos"] == [sample.video]
        assert row["solution"] == ([list(sample.segment)] if sample.segment else [])
    steps.convert(str(tmp_path / "swift.jsonl"), str(tmp_path / "back.jsonl"))
    steps.validate(str(tmp_path / "back.jsonl"), str(tmp_path / "back"))
    expected = [(sample.id, sample.query, sample.segment, sample.duration) for sample in samples]
    assert [(one.id, one.query, one.segment, one.duration) for one in read_samples(str(tmp_path / "back"))] == expected


def test_export_of_crop_several_segments_and_blank_refusal(tmp_path):
    """The prompt does not mention a crop, which ms-swift does not apply; a blank refusal has no reply."""
    convert(tmp_path, in_lines({**WINDOWS, "relevant_windows": [[41, 42], [44, 45]]}))
    steps.validate(str(tmp_path / "out.jsonl"), str(tmp_path), probe="none")
    (sample,) = read_samples(str(tmp_path))
    sample = msgspec.structs.replace(sample, crop=(40.0, 70.5))
    row = ms_swift_row(sample)
    assert row["solution"] == [[41.0, 42.0], [44.0, 45.0]]
    assert "part" not in row["messages"][0]["content"]
    assert row["messages"][1]["content"] == "<answer>41.00 to 42.00, 44.00 to 45.00</answer>"
    refusable = msgspec.structs.replace(sample, segments=[], segment=None, gt_answer="", task_type="refusable")
    counts = export_ms_swift([sample, refusable], io.BytesIO())
    assert counts == {"rows": 2, "with_crop": 2, "without_answer": 1}
    assert [message["role"] for message in ms_swift_row(refusable)["messages"]] == ["user"]


@pytest.mark.parametrize("name", published_formats.FORMATS)
def test_formats_agree_on_the_same_queries(name, tmp_path, validated, sample_set):
    """The same queries in each format are the same rows of riq.jsonl, with the same ids."""
    samples = [
        sample for sample in read_samples(str(validated)) if sample.task_type == "answerable" or name == "ms-swift"
    ]
    queries = [(Path(one.video).name, one.query, one.segment, one.duration) for one in samples]
    (tmp_path / "durations.csv").write_text(published_formats.charades_durations(queries))
    result, _ = convert(tmp_path, published_formats.FORMATS[name](queries), durations=str(tmp_path / "durations.csv"))
    assert (result.format, result.counts["unreadable"]) == (name, 0)
    report = steps.validate(str(tmp_path / "out.jsonl"), str(tmp_path), str(sample_set / "videos"), probe="header")
    assert report["counts"]["quarantined"] == 0
    identified = {(one.id, one.video, one.query, one.segment, one.duration, one.task_type) for one in samples}
    converted = read_samples(str(tmp_path))
    assert {
        (one.id, one.video, one.query, one.segment, one.duration, one.task_type) for one in converted
    } == identified
    assert len(converted) == len(samples)


def test_command(main, tmp_path, validated):
    (tmp_path / "a.txt").write_text("AO8RW 0.0 6.9##a person reads a book.\nbroken\n")
    code, out, _ = main("convert", "a.txt", "--out", "a.jsonl")
    assert (code, out.splitlines()) == (
        0,
        [
            "2 records in the format charades-sta: 1 queries, 1 answerable, 0 refusable, 1 unreadable",
            "  1 without a duration: validation reads it from the video",
            '  unreadable: record 1: not a line VIDEO START END##QUERY: "broken"',
            "a.jsonl",
        ],
    )
    assert main("convert", validated, "--to", "ms-swift", "--out", "b.jsonl")[:2] == (0, "16 queries\nb.jsonl\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.txt", "--out", "o"], "missing.txt: no such file"),
        (["a.txt", "--out", "o", "--from", "charade-sta"], "--from charade-sta: no such format; did you mean"),
        (["a.txt", "--out", "o", "--durations", "none.csv"], "--durations none.csv: no such file"),
        (["a.txt", "--out", "o", "--video-root", "none"], "--video-root"),
        (["a.txt", "--out", "."], "--out .: is a folder; give a file"),
        (["a.txt", "--out", "o", "--to", "ms-swift"], "not a validated query"),
        (["a.txt", "--out", "o", "--to", "ms-swift", "--from", "auto"], "--from: cannot be combined with --to"),
    ],
)  # fmt: skip
def test_command_rejects(arguments, message, main, tmp_path):
    (tmp_path / "a.txt").write_text("AO8RW 0.0 6.9##a person reads a book.\n")
    code, _, error = main("convert", *arguments)
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()
