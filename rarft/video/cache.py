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
import time
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
import xxhash

from rarft.segments import Segment
from rarft.storage.s3 import ObjectNotFoundError, is_object_uri, object_version
from rarft.video.decode import Frames, FrameSampling, read_frames
from rarft.video.probe import VideoError

# Changes when decoding or resizing gives other pixels.
_VERSION = 2
_SUFFIX = ".frames"
_CHUNK = 2**22  # bytes
# A process looks through the folder after it has written this share of the bound: others write there, too.
_SCAN_FRACTION = 0.01
_STALE = 3600.0  # seconds after which a temporary file is one that a killed process left

_log = logging.getLogger(__name__)


def _content_hash(path: str) -> str:
    """What changes with a video's content: the content's hash; of an object, its name, size and the store's tag."""
    if is_object_uri(path):
        try:
            return f"{path} {object_version(path, 'video')}"
        except ObjectNotFoundError as error:
            raise VideoError(str(error)) from error
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
        self._written = max_bytes  # since this process last looked; at first it looks at once
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
        except OSError:  # not there, or another user's: decoded, and counted if it cannot be written
            return None
        with contextlib.suppress(OSError):  # a folder that is read only
            os.utime(file)  # used just now
        try:
            checksum, length = struct.unpack_from("<QI", content)
            if checksum != xxhash.xxh3_64_intdigest(content[8:]):
                raise ValueError("its checksum is another")
            header = json.loads(content[12 : 12 + length])
            pixels = np.frombuffer(content, np.uint8, offset=12 + length).reshape(header["shape"])
        except (struct.error, ValueError, KeyError) as error:
            self.damaged += 1
            _log.warning("frame cache: %s is damaged (%s), removed and decoded anew", file, error)
            with contextlib.suppress(OSError):
                file.unlink()
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
            os.fchmod(descriptor, 0o644)  # other users read it, too
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(struct.pack("<Q", xxhash.xxh3_64_intdigest(body)) + body)
            Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)
        self._written += len(body)
        if self._written > self._max_bytes * _SCAN_FRACTION:
            self._written = 0.0
            self._shrink()

    def _shrink(self) -> None:
        """Remove what was not used for the longest time, down to the bound, and what killed processes left."""
        held = []
        for file in self._folder.rglob("*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > _STALE:
                    file.unlink()
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
