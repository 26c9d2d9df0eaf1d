"""Decoded frames kept on disk: keyed by what the video holds and by how it is sampled, bounded, and verified.

Many processes may share a folder: a file appears whole or not at all, and one that another process removed is
decoded anew.
"""

import contextlib
import json
import logging
import os
import struct
import tempfile
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
import xxhash

from rarft.segments import Segment
from rarft.video.decode import Frames, FrameSampling, read_frames
from rarft.video.probe import VideoError

# Changes when decoding or resizing gives other pixels.
_VERSION = 1
_SUFFIX = ".frames"
_CHUNK = 2**22  # bytes
# Until it is this much above the bound nothing is removed, so that not every write looks through the folder.
_SLACK = 1.05

_log = logging.getLogger(__name__)


def _content_hash(path: str) -> str:
    digest = xxhash.xxh3_128()
    try:
        with Path(path).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


class FrameCache:
    """Frames by content, decoded once.

    Attributes:
        hits: how many were found.
        damaged: how many were found broken, removed and decoded anew.
        unwritten: how many could not be written.
    """

    def __init__(self, folder: Path, max_bytes: float) -> None:
        """
        Args:
            folder: made where it is missing.
            max_bytes: what it may hold; beyond that, what was not used for the longest time goes first.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._max_bytes = folder, max_bytes
        self._written: float | None = None  # bytes that the folder holds, as far as this process knows
        self.hits = self.damaged = self.unwritten = 0

    def read(self, path: str, sampling: FrameSampling, crop: Segment | None = None) -> Frames:
        """As `read_frames`, from the cache where it has them.

        Raises:
            VideoError: the video cannot be read.
        """
        settings = json.dumps([_VERSION, *astuple(sampling), crop])
        key = xxhash.xxh3_128_hexdigest(f"{_content_hash(path)} {settings}".encode())
        file = self._folder / key[:2] / f"{key}{_SUFFIX}"
        frames = self._load(file)
        if frames is None:
            frames = read_frames(path, sampling, crop)
            try:
                self._store(file, frames)
            except OSError as error:  # a full disk must not end a training run
                self.unwritten += 1
                if self.unwritten == 1:
                    _log.warning("frame cache: %s cannot be written (%s); going on without", file, error.strerror)
        return frames

    def _load(self, file: Path) -> Frames | None:
        try:
            content = file.read_bytes()
            os.utime(file)  # used just now
        except FileNotFoundError:
            return None
        try:
            checksum, length = struct.unpack_from("<QI", content)
            if checksum != xxhash.xxh3_64_intdigest(content[8:]):
                raise ValueError("its checksum is another")
            header = json.loads(content[12 : 12 + length])
            pixels = np.frombuffer(content, np.uint8, offset=12 + length).reshape(header["shape"])
        except (struct.error, ValueError, KeyError) as error:
            self.damaged += 1
            _log.warning("frame cache: %s is damaged (%s), removed and decoded anew", file, error)
            file.unlink(missing_ok=True)
            return None
        self.hits += 1
        return Frames(torch.from_numpy(pixels.copy()), header["indices"], header["file_fps"], header["file_frames"])

    def _store(self, file: Path, frames: Frames) -> None:
        header = json.dumps(
            {
                "shape": list(frames.pixels_TCHW.shape),
                "indices": frames.indices,
                "file_fps": frames.file_fps,
                "file_frames": frames.file_frames,
            }
        ).encode()
        body = struct.pack("<I", len(header)) + header + frames.pixels_TCHW.contiguous().numpy().tobytes()
        file.parent.mkdir(exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(struct.pack("<Q", xxhash.xxh3_64_intdigest(body)) + body)
            Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)
        if self._written is not None:
            self._written += len(body)
        if self._written is None or self._written > self._max_bytes * _SLACK:
            self._written = self._shrink()

    def _shrink(self) -> float:
        """Remove what was not used for the longest time, down to the bound; returns the bytes left."""
        held = []
        for file in self._folder.rglob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                status = file.stat()
                held.append((status.st_mtime_ns, status.st_size, file))
        total = float(sum(size for _, size, _ in held))
        for _, size, file in sorted(held):
            if total <= self._max_bytes:
                break
            file.unlink(missing_ok=True)
            total -= size
        return total
