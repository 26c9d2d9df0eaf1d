"""Reading an object in ranges: the same bytes as the object has, within the bounds of the cache."""

import random

import pytest

from rarft.storage import object_file
from rarft.storage.object_file import ObjectFile

CONTENT = random.Random(0).randbytes(5_000_003)


@pytest.fixture
def requests(monkeypatch):
    """Serve CONTENT as s3://b/k; the list of requested ranges."""
    ranges = []

    def read_range(uri, start, stop, etag):
        assert (uri, etag) == ("s3://b/k", "tag")
        assert 0 <= start < stop <= len(CONTENT)
        ranges.append((start, stop))
        return CONTENT[start:stop]

    monkeypatch.setattr(object_file, "size_and_etag", lambda uri: (len(CONTENT), "tag"))
    monkeypatch.setattr(object_file, "read_range", read_range)
    return ranges


def total_bytes(ranges):
    return sum(stop - start for start, stop in ranges)


def test_random_reads(requests, monkeypatch):
    monkeypatch.setattr(object_file, "_MAX_CACHED_BYTES", 2**20)
    monkeypatch.setattr(object_file, "_MAX_FETCH", 2**19)
    rng, file = random.Random(1), ObjectFile("s3://b/k")
    for _ in range(500):
        start = rng.randrange(len(CONTENT) + 10)
        stop = start + rng.choice([0, 1, 100, 70_000, 2_000_000])
        limit = rng.choice([None, start, stop, len(CONTENT) + 5])
        assert file.read_at(start, stop, limit) == CONTENT[start:stop]
        assert len(file._blocks) * object_file._BLOCK <= 2**20


def test_sequential_reads_ahead(requests):
    """Each byte is requested once, in requests that get larger."""
    file = ObjectFile("s3://b/k")
    position, parts = 0, []
    while part := file.read_at(position, position + 1000):
        parts.append(part)
        position += len(part)
    assert b"".join(parts) == CONTENT
    assert total_bytes(requests) == len(CONTENT)
    assert len(requests) < 7


def test_limit_of_reading_ahead(requests):
    file = ObjectFile("s3://b/k")
    assert file.read_at(3_000_000, 3_000_100, 3_000_200) == CONTENT[3_000_000:3_000_100]
    assert total_bytes(requests) == object_file._BLOCK
    assert file.read_at(3_000_050, 3_000_100) == CONTENT[3_000_050:3_000_100]
    assert len(requests) == 1
