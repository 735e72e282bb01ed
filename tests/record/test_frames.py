"""Append-only files of frames: torn ends and broken middles."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlframe.record.frames import BrokenFrame, FrameWriter, read_frame, read_frames

CONTENTS = [b"one", b"", b"three" * 10]


def write(path: Path) -> list[int]:
    writer = FrameWriter(path)
    starts = [writer.append(content) for content in CONTENTS]
    writer.close()
    return starts


def test_frames_come_back_with_their_first_bytes(tmp_path):
    starts = write(tmp_path / "log")
    assert starts == [0, 19, 35]  # 16 bytes of header before each content
    assert list(read_frames(tmp_path / "log")) == list(zip(starts, CONTENTS, strict=True))
    assert [read_frame(tmp_path / "log", start) for start in starts] == CONTENTS


def test_a_file_cut_at_any_byte_keeps_its_whole_frames(tmp_path):
    starts = write(tmp_path / "log")
    data = (tmp_path / "log").read_bytes()
    ends = [*starts[1:], len(data)]
    for cut in range(len(data)):
        (tmp_path / "cut").write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends)
        assert [content for _, content in read_frames(tmp_path / "cut")] == CONTENTS[:whole]


def test_a_changed_byte_before_the_last_frame_names_the_frame(tmp_path):
    write(tmp_path / "log")
    data = bytearray((tmp_path / "log").read_bytes())
    for byte in range(35):  # of the first two frames: magic, length, checksums, content
        data[byte] ^= 1
        (tmp_path / "log").write_bytes(data)
        with pytest.raises(BrokenFrame, match=rf"log, byte {0 if byte < 19 else 19}: the frame's checksum is wrong"):
            list(read_frames(tmp_path / "log"))
        data[byte] ^= 1


def test_a_last_frame_of_zeros_is_torn(tmp_path):
    write(tmp_path / "log")
    data = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(data[:35] + bytes(50))
    assert [content for _, content in read_frames(tmp_path / "log")] == CONTENTS[:2]


def test_an_end_of_which_the_disk_has_some_bytes_only_is_torn(tmp_path):
    write(tmp_path / "log")
    data = (tmp_path / "log").read_bytes()
    for lost in range(35, len(data)):  # from here on 8 bytes did not reach the disk
        (tmp_path / "log").write_bytes((data[:lost] + bytes(8) + data[lost + 8 :])[: len(data)])
        assert [content for _, content in read_frames(tmp_path / "log")] == CONTENTS[:2]


def test_a_frame_that_holds_frames_is_one_frame(tmp_path):
    write(tmp_path / "inner")
    writer = FrameWriter(tmp_path / "log")
    writer.append((tmp_path / "inner").read_bytes())
    writer.append(b"last")
    writer.close()
    assert [len(content) for _, content in read_frames(tmp_path / "log")] == [35 + 16 + 50, 4]


def test_threads_append_and_flush_without_losing_a_frame(tmp_path):
    writer = FrameWriter(tmp_path / "log")

    def append(thread: int) -> list[tuple[int, bytes]]:
        contents = [f"{thread}/{number}".encode() * 500 for number in range(200)]
        return [(writer.append(content), content) for content in contents]

    with ThreadPoolExecutor(5) as threads:
        appending = [threads.submit(append, thread) for thread in range(4)]
        threads.submit(lambda: [writer.flush() for _ in range(50)]).result()
        expected = sorted(frame for appended in appending for frame in appended.result())
    writer.close()
    assert list(read_frames(tmp_path / "log")) == expected


def test_after_a_failed_write_a_file_gets_no_further_frames(tmp_path):
    writer = FrameWriter(tmp_path / "log")
    os.close(writer._descriptor)
    writer.append(b"one")
    for _ in range(2):
        with pytest.raises(OSError, match="Bad file descriptor"):
            writer.flush()


def test_a_frame_is_on_the_disk_after_flush_only(tmp_path):
    writer = FrameWriter(tmp_path / "log")
    writer.append(b"one")
    assert list(read_frames(tmp_path / "log")) == []
    writer.flush()
    assert list(read_frames(tmp_path / "log")) == [(0, b"one")]
    writer.close()


def test_a_file_has_a_single_writer(tmp_path):
    write(tmp_path / "log")
    with pytest.raises(FileExistsError):
        FrameWriter(tmp_path / "log")


def test_reading_between_two_frames_names_file_and_byte(tmp_path):
    write(tmp_path / "log")
    with pytest.raises(BrokenFrame, match=r"log, byte 3: no whole frame begins here"):
        read_frame(tmp_path / "log", 3)
