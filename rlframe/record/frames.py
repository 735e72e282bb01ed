"""An append-only file of frames: length, checksum, content. A crash tears at most the last frame."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

HEADER = struct.Struct("<II")  # bytes of the content, CRC-32 of the content
LARGEST = 1 << 31  # bytes of a content; a larger length is a broken header


class BrokenFrame(ValueError):
    """A frame before the last one of a file is broken. The message names the file and the byte."""


class FrameWriter:
    """Appends frames to a new file. `append` collects frames in memory, and `flush` brings them to the disk.

    `append` is for one thread; `flush` may run on another thread.
    """

    def __init__(self, path: Path) -> None:
        """Makes the file. Raises FileExistsError: a file has one writer, and a torn file gets no further frames."""
        self.path = path
        self.bytes = 0  # of all frames so far
        self._waiting: list[bytes] = []
        self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def append(self, content: bytes) -> int:
        """Adds a frame -> the frame's first byte in the file."""
        start = self.bytes
        self._waiting.append(HEADER.pack(len(content), zlib.crc32(content)) + content)
        self.bytes += HEADER.size + len(content)
        return start

    def flush(self) -> None:
        """Writes the frames so far, and returns once the disk has them. Raises OSError."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            data = memoryview(b"".join(waiting))
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Flushes and closes the file."""
        try:
            self.flush()
        finally:
            os.close(self._descriptor)


def read_frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields (first byte, content) of each frame. A torn last frame ends the file. Raises BrokenFrame and OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = 0
        while start + HEADER.size <= size:
            length, checksum = HEADER.unpack(file.read(HEADER.size))
            end = start + HEADER.size + length
            if end > size:
                return  # a crash tore the frame
            content = file.read(length)
            if zlib.crc32(content) != checksum:
                if end == size:
                    return  # likewise: the disk had the length before the content
                raise BrokenFrame(f"{path}, byte {start}: the frame's checksum is wrong")
            yield start, content
            start = end


def read_frame(path: Path, start: int) -> bytes:
    """The content of the frame that begins at byte `start`. Raises BrokenFrame and OSError."""
    with path.open("rb") as file:
        file.seek(start)
        header = file.read(HEADER.size)
        length, checksum = HEADER.unpack(header) if len(header) == HEADER.size else (LARGEST, 0)
        content = file.read(length) if length < LARGEST else b""
    if len(content) != length or zlib.crc32(content) != checksum:
        raise BrokenFrame(f"{path}, byte {start}: no whole frame begins here")
    return content
