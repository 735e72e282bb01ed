"""An append-only file of frames: header with checksums, then content. A crash tears at most the end of the file."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

MAGIC = b"RLF1"
FIELDS = struct.Struct("<4sII")  # MAGIC, bytes of the content, CRC-32 of the content
HEADER_BYTES = FIELDS.size + 4  # the fields, and their own CRC-32


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """The first byte of a frame, in a file named relative to the run's ledger: "000007/episodes-0.log"."""

    file: str
    byte: int


class BrokenFrame(ValueError):
    """A frame is broken, and not as the torn end of a file. The message names the file and the byte."""


class FrameWriter:
    """Appends frames to a new file. `append` collects frames in memory, and `flush` brings them to the disk.

    Any thread may call either.
    """

    def __init__(self, path: Path) -> None:
        """Makes the file. Raises FileExistsError: a file has one writer, and a torn file gets no further frames."""
        self.path = path
        self.bytes = 0  # of all frames so far
        self._waiting: list[bytes] = []
        self._appending = Lock()
        self._flushing = Lock()
        self._error: OSError | None = None
        self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def append(self, content: bytes) -> int:
        """Adds a frame -> the frame's first byte in the file."""
        frame = _header(content) + content
        with self._appending:
            start = self.bytes
            self.bytes += len(frame)
            self._waiting.append(frame)
        return start

    def flush(self) -> None:
        """Writes the frames so far, and returns once the disk has them.

        Raises OSError; after an error the file may end in half a frame, so every later call raises the same error.
        """
        with self._flushing:
            if self._error is not None:
                raise self._error
            with self._appending:
                waiting, self._waiting = self._waiting, []
            try:
                self._write(b"".join(waiting))
            except OSError as error:
                self._error = error
                raise

    def close(self) -> None:
        """Flushes and closes the file."""
        try:
            self.flush()
        finally:
            os.close(self._descriptor)

    def _write(self, frames: bytes) -> None:
        unwritten = memoryview(frames)
        while unwritten:
            unwritten = unwritten[os.write(self._descriptor, unwritten) :]
        if frames:
            os.fsync(self._descriptor)


def read_frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields (first byte, content) of each frame. A torn last frame ends the file. Raises BrokenFrame and OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = 0
        while start < size:
            file.seek(start)
            content = _read(file.read(HEADER_BYTES), file.read)
            if content is None:
                file.seek(start + 1)
                if _holds_a_frame(file.read()):
                    raise BrokenFrame(f"{path}, byte {start}: the frame's checksum is wrong")
                return  # no whole frame follows: a crash tore the end of the file
            yield start, content
            start += HEADER_BYTES + len(content)


def read_frame(path: Path, start: int) -> bytes:
    """The content of the frame that begins at byte `start`. Raises BrokenFrame and OSError."""
    with path.open("rb") as file:
        file.seek(start)
        content = _read(file.read(HEADER_BYTES), file.read)
    if content is None:
        raise BrokenFrame(f"{path}, byte {start}: no whole frame begins here")
    return content


def _header(content: bytes) -> bytes:
    fields = FIELDS.pack(MAGIC, len(content), zlib.crc32(content))
    return fields + zlib.crc32(fields).to_bytes(4, "little")


def _read(header: bytes, read: Callable[[int], bytes]) -> bytes | None:
    """The content behind a header, by `read`; None where header or content is not whole."""
    fields, checksum = header[: FIELDS.size], header[FIELDS.size :]
    if len(header) < HEADER_BYTES or zlib.crc32(fields).to_bytes(4, "little") != checksum:
        return None
    magic, length, content_checksum = FIELDS.unpack(fields)
    content = read(length)
    whole = magic == MAGIC and len(content) == length and zlib.crc32(content) == content_checksum
    return content if whole else None


def _holds_a_frame(data: bytes) -> bool:
    """True if a whole frame begins anywhere in `data`."""
    start = data.find(MAGIC)
    while start >= 0:
        rest = io.BytesIO(data[start:])
        if _read(rest.read(HEADER_BYTES), rest.read) is not None:
            return True
        start = data.find(MAGIC, start + 1)
    return False
