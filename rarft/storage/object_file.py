"""An object of an S3 store as a file that is read in ranges, through a bounded cache of blocks."""

from collections import OrderedDict

from rarft.storage.s3 import read_range, size_and_etag

_BLOCK = 2**16  # bytes; ranges are whole blocks
_MIN_FETCH, _MAX_FETCH = 2**18, 2**23  # bytes of one request
_MAX_CACHED_BYTES = 2**25


class ObjectFile:
    """An object, at the version that it has when it is opened.

    Attributes:
        uri: URI of the object.
        size: Size in bytes.
    """

    def __init__(self, uri: str) -> None:
        """
        Args:
            uri: URI of the object.

        Raises:
            ObjectNotFoundError: There is no such object.
            StoreError: The store cannot be read.
        """
        self.uri = uri
        self.size, self._etag = size_and_etag(uri)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()  # least recently used first
        self._next, self._fetch_size = -1, _MIN_FETCH  # block after the last request; size of that request

    def read_at(self, start: int, stop: int, limit: int | None = None) -> bytes:
        """Return bytes `start` to `stop` (exclusive), fewer at the end of the file.

        Args:
            start: First byte.
            stop: End of the bytes to return.
            limit: End of the bytes that will be read next. If it is None, more is read ahead the longer reading has
                been sequential.

        Raises:
            StoreError: The object changed, or cannot be read.
        """
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        blocks = range(start // _BLOCK, (stop - 1) // _BLOCK + 1)
        content = b"".join(self._block(block, stop, limit) for block in blocks)
        first = start - blocks[0] * _BLOCK
        return content[first : first + stop - start]

    def _block(self, block: int, stop: int, limit: int | None) -> bytes:
        if block not in self._blocks:
            self._fetch(block, stop, limit)
        self._blocks.move_to_end(block)
        return self._blocks[block]

    def _fetch(self, block: int, stop: int, limit: int | None) -> None:
        """Request a block and the ones that are read next."""
        start = block * _BLOCK
        self._fetch_size = min(2 * self._fetch_size, _MAX_FETCH) if block == self._next else _MIN_FETCH
        wanted = min(max(stop, start + self._fetch_size if limit is None else limit), start + _MAX_FETCH)
        end = min(-(-wanted // _BLOCK) * _BLOCK, self.size)
        content = read_range(self.uri, start, end, self._etag)
        for offset in range(0, len(content), _BLOCK):
            self._blocks[(start + offset) // _BLOCK] = content[offset : offset + _BLOCK]
        self._next = -(-end // _BLOCK)
        while len(self._blocks) * _BLOCK > _MAX_CACHED_BYTES:
            self._blocks.popitem(last=False)
