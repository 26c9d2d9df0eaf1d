"""MP4 and QuickTime files in a store, read without the pictures that are not needed.

The index of such a file (the `moov` box) states the time, size and position of every packet, and FFmpeg does not look
into the media data (`mdat` boxes) before it decodes. So FFmpeg gets a file whose media data is zero except where
packets are decoded, and returns the same packets with the same times.
"""

import bisect
import struct
from collections.abc import Iterable

from rarft.storage.object_file import ObjectFile
from rarft.storage.s3 import StoreError

Extent = tuple[int, int]  # first byte, and the byte after the last one

_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}
_MAX_BOXES = 64
_MAX_GAP = 2**20  # bytes between two extents that are read, since another request takes as long


class Mp4Object:
    """An MP4 or QuickTime file in a store.

    Attributes:
        error: First error of the store that a view hit. FFmpeg only sees the end of the file.
    """

    def __init__(self, file: ObjectFile, media: list[Extent]) -> None:
        """
        Args:
            file: The object.
            media: Extents of its media data, from `find_media_data`.
        """
        self.file, self._media = file, media
        self.error: StoreError | None = None

    def view(self) -> "SparseView":
        """Return a file for FFmpeg, whole until `limit` is called."""
        return SparseView(self)

    def known_extents(self, packets: Iterable[Extent]) -> list[Extent]:
        """Return the extents of everything but the media data, and of some packets; increasing and disjoint."""
        edges = [0, *(edge for extent in self._media for edge in extent), self.file.size]
        merged: list[Extent] = []
        for start, stop in sorted([*zip(edges[::2], edges[1::2], strict=True), *packets]):
            if merged and start <= merged[-1][1] + _MAX_GAP:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
            elif start < stop:
                merged.append((start, stop))
        return merged

    def check(self) -> None:
        """Raise the error of the store, if there was one."""
        if self.error is not None:
            raise self.error


class SparseView:
    """A file object that reads zeros outside of the extents that it is limited to."""

    def __init__(self, source: Mp4Object) -> None:
        self._source, self._size = source, source.file.size
        self._position = 0
        self._edges = [0, self._size]  # starts and ends of the extents
        self._is_limited = False

    def limit(self, extents: Iterable[Extent]) -> None:
        """Read only these extents, which are increasing and disjoint, from now on."""
        self._edges = [edge for extent in extents for edge in extent]
        self._is_limited = True

    def read(self, size: int) -> bytes:
        """Return the next bytes, at least one unless the file ends."""
        start, stop = self._position, min(self._position + size, self._size)
        if start >= stop or self._source.error is not None:
            return b""
        index = bisect.bisect_right(self._edges, start)
        edge = self._edges[index] if index < len(self._edges) else self._size
        stop = min(stop, edge)
        if index % 2:
            try:
                content = self._source.file.read_at(start, stop, edge if self._is_limited else None)
            except StoreError as error:
                self._source.error = error
                return b""
        else:
            content = bytes(stop - start)
        self._position = stop
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position, as a file does."""
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position


def find_media_data(file: ObjectFile) -> list[Extent] | None:
    """Return the extents of the media data of an MP4 or QuickTime file; None if it has no index of all packets."""
    media: list[Extent] = []
    position, has_index = 0, False
    for _ in range(_MAX_BOXES):
        header = file.read_at(position, position + 16, position + 16)
        if len(header) < 8:
            break
        size, name = struct.unpack_from(">I4s", header)
        if size == 1 and len(header) == 16:  # a size of 64 bits follows
            size = struct.unpack_from(">Q", header, 8)[0]
            content = position + 16
        else:
            size = size or file.size - position  # 0: up to the end of the file
            content = position + 8
        is_known = position or name in _FIRST_BOXES
        if not is_known or name == b"moof" or position + size < content:  # fragments have an index each
            return None
        has_index = has_index or name == b"moov"
        position = min(position + size, file.size)
        if name == b"mdat" and content < position:
            media.append((content, position))
    return media if has_index and position == file.size else None
