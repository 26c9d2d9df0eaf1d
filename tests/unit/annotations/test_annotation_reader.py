import gzip
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarft.annotations import reader
from rarft.annotations.reader import MalformedLine, read_items
from rarft.errors import InputError

ITEMS = [{"video": "a.mp4", "GRPO": [{"q": 'ä \u2028 "x" [1,{', "r": True}]}, 5, {"GRPO": [], "n": 1.5e3}]


def lines(items):
    return "\n".join(json.dumps(item, ensure_ascii=False) for item in items)


@pytest.mark.parametrize("text", [json.dumps(ITEMS), json.dumps(ITEMS, indent=2, ensure_ascii=False), lines(ITEMS)])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_formats_and_encodings(tmp_path, monkeypatch, text, encoding, zipped, chunk):
    monkeypatch.setattr(reader, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert list(read_items(path)) == ITEMS


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty file"),
        (b"  \n ", "empty file"),
        (b'[{"a": 1}, {"b"', "truncated or invalid JSON list"),
        (b'[{"a": 1}', "truncated or invalid JSON list"),
        (b'[{"a": 1} {"b": 2}]', "truncated or invalid JSON list"),
        (b"[1, 2] 3", "unexpected text after the end of the list"),
        (b"[1, 2,]", "truncated or invalid JSON list"),
        (b'{"some": "object"}', "neither a JSON list nor JSON Lines"),
        (b"123", "neither a JSON list nor JSON Lines"),
        (b"hello\nworld", "neither a JSON list nor JSON Lines"),
        (b"\x7fELF\x00\x01\xff\xfe\x80", "neither a JSON list nor JSON Lines"),
        (b"[" * 100_000, "truncated or invalid JSON list"),
        (gzip.compress(b"[1, 2, 3]" * 1000, mtime=0)[:-20], "cannot be read to its end"),
        (b"\x1f\x8bnot gzip at all", "corrupt gzip file"),
    ],
)
def test_unreadable_files(tmp_path, content, problem):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=problem) as raised:
        list(read_items(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_malformed_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"GRPO": []}\n{"broken\n\nfoo\n\xff\xfe{}\n{"GRPO": [1]}\n')
    found = list(read_items(path))
    assert [type(item) for item in found] == [dict, MalformedLine, MalformedLine, MalformedLine, dict]
    assert found[1].text == '{"broken'


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=8))
def test_round_trip(tmp_path_factory, item):
    path = tmp_path_factory.mktemp("any") / "a.json"
    path.write_text(json.dumps([item, item]))
    assert list(read_items(path)) == [item, item]


def test_memory_is_bounded(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" + ",\n".join(json.dumps({"text": "x" * 10_000}) for _ in range(3000)) + "]")
    tracemalloc.start()
    assert sum(1 for _ in read_items(path)) == 3000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12_000_000 < path.stat().st_size
