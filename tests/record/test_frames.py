"""Append-only files of frames: torn ends and broken middles."""

from __future__ import annotations

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
    assert starts == [0, 11, 19]  # 8 bytes of header before each content
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
    data[9] ^= 1  # in the content of the first frame
    (tmp_path / "log").write_bytes(data)
    with pytest.raises(BrokenFrame, match=r"log, byte 0: the frame's checksum is wrong"):
        list(read_frames(tmp_path / "log"))


def test_a_last_frame_of_zeros_is_torn(tmp_path):
    write(tmp_path / "log")
    data = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(data[:27] + bytes(50))
    assert [content for _, content in read_frames(tmp_path / "log")] == CONTENTS[:2]


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
