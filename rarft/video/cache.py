"""Cache of decoded frames on disk, by the video's content and the sampling; bounded in size and verified.

Several processes may share a folder: files are written atomically, and a file that another process deleted is decoded
again.
"""

import contextlib
import hashlib
import json
import logging
import os
import struct
import tempfile
import time
from dataclasses import astuple
from pathlib import Path
from threading import Lock

import numpy as np
import torch
import xxhash

from rarft.segments import Segment
from rarft.storage.s3 import ObjectNotFoundError, is_object_uri, object_version
from rarft.video.decode import Frames, read_frames
from rarft.video.reader import VideoError
from rarft.video.sampling import FrameSampling

_VERSION = 3  # of the frames: increase it when their choice, decoding or resizing changes
_SUFFIX = ".frames"
# A process scans the folder after it has written this fraction of the bound, since other processes write to it too.
_SCAN_FRACTION = 0.01
_STALE_S = 3600.0  # age of a temporary file that a killed process left

logger = logging.getLogger(__name__)


def _content_hash(path: str) -> str:
    """Return a hash of a file's content, or the name, size and ETag of an object."""
    if is_object_uri(path):
        try:
            return f"{path} {object_version(path)}"
        except ObjectNotFoundError as error:
            raise VideoError(str(error)) from error
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror})") from error


class FrameCache:
    """Cache of decoded frames in a folder.

    A folder that is smaller than the data keeps what it has: each epoch reads every video once, so replacing the
    least recently used ones would replace each file before it is read again. Only files that nobody has used since
    this object was created are deleted for new ones.

    Attributes:
        hits: Number of videos that were found.
        corrupt: Number of files that were corrupt, deleted and decoded again.
        write_errors: Number of files that could not be written.
        not_stored: Number of videos that the folder had no space for.
    """

    def __init__(self, folder: Path, max_bytes: float) -> None:
        """
        Args:
            folder: Folder of the cache; created if missing.
            max_bytes: Maximum size of the folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._max_bytes = folder, max_bytes
        self._start_ns = time.time_ns()
        self._free = 0.0  # bytes that may be written before the next scan
        self._is_full = False
        self._lock = Lock()
        self.hits = self.corrupt = self.write_errors = self.not_stored = 0

    def read(self, path: str, sampling: FrameSampling, crop: Segment | None = None) -> Frames:
        """Return the frames of a video as `read_frames` does, from the cache if possible.

        Raises:
            VideoError: The video cannot be read.
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
                self.write_errors += 1
                if self.write_errors == 1:
                    logger.warning("%s: cannot be written (%s); continuing without the cache", file, error.strerror)
        return frames

    def _load(self, file: Path) -> Frames | None:
        try:
            content = file.read_bytes()
        except OSError:  # missing or unreadable: decoded, and counted if it cannot be written
            return None
        with contextlib.suppress(OSError):  # a read-only folder
            os.utime(file)  # mark as recently used
        try:
            checksum, length = struct.unpack_from("<QI", content)
            if checksum != xxhash.xxh3_64_intdigest(content[8:]):
                raise ValueError("wrong checksum")
            header = json.loads(content[12 : 12 + length])
            pixels = np.frombuffer(content, np.uint8, offset=12 + length).reshape(header["shape"])
        except (struct.error, ValueError, KeyError) as error:
            self.corrupt += 1
            logger.warning("%s: corrupt (%s); deleted and decoded again", file, error)
            with contextlib.suppress(OSError):
                file.unlink()
            return None
        self.hits += 1
        return Frames(
            torch.from_numpy(pixels.copy()),
            torch.tensor(header["timestamps"], dtype=torch.float64),
            header["indices"],
            header["file_fps"],
            header["file_frames"],
        )

    def _store(self, file: Path, frames: Frames) -> None:
        header = json.dumps(
            {
                "shape": list(frames.pixels_TCHW.shape),
                "timestamps": frames.timestamps_T.tolist(),
                "indices": frames.indices,
                "file_fps": frames.file_fps,
                "file_frames": frames.file_frames,
            }
        ).encode()
        body = struct.pack("<I", len(header)) + header + frames.pixels_TCHW.contiguous().numpy().tobytes()
        if not self._reserve(len(body)):
            self.not_stored += 1
            return
        file.parent.mkdir(exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        try:
            os.fchmod(descriptor, 0o644)  # readable by other users
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(struct.pack("<Q", xxhash.xxh3_64_intdigest(body)) + body)
            Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _reserve(self, size: int) -> bool:
        """Return whether a file of this size may be written, after deleting unused files if necessary."""
        with self._lock:
            if size > self._free and not self._is_full:
                space = self._evict(size)
                # Other processes write too: scan again after a fraction of the bound.
                self._free = min(space, max(size, self._max_bytes * _SCAN_FRACTION))
                self._is_full = space < size
                if self._is_full:
                    logger.warning(
                        "%s: full (%.3g GB); the other videos are decoded each time; increase --frame_cache_gb",
                        self._folder,
                        self._max_bytes / 1e9,
                    )
            if size > self._free:
                return False
            self._free -= size
            return True

    def _evict(self, size: int) -> float:
        """Delete stale temporary files, and unused files until `size` bytes fit; return the space in bytes."""
        for file in self._folder.rglob("*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > _STALE_S:
                    file.unlink()
        files = []
        for file in self._folder.rglob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # deleted by another process
                status = file.stat()
                files.append((status.st_mtime_ns, status.st_size, file))
        space = self._max_bytes - sum(size for _, size, _ in files)
        wanted = max(size, self._max_bytes * _SCAN_FRACTION)
        for used_ns, file_size, file in sorted(files):
            if space >= wanted or used_ns >= self._start_ns:
                break
            file.unlink(missing_ok=True)
            space += file_size
        return space
