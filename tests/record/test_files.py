"""Whole files and torn lines."""

import gzip

import pytest

from rlframe.record.files import read_json_lines, replace_file, stream_json_lines, write_json_lines


def test_a_replaced_file_leaves_no_temporary_file(tmp_path):
    for content in (b"old", b"new"):
        replace_file(tmp_path / "file", content)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"new")]


@pytest.mark.parametrize("torn", [b'{"n": 3', b'{"n": 3}', b"\xe2\x80"])
def test_a_last_line_without_its_newline_is_ignored(tmp_path, torn):
    (tmp_path / "lines.jsonl").write_bytes(b'{"n": 1}\n{"n": 2}\n' + torn)
    assert read_json_lines(tmp_path / "lines.jsonl", "n") == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("line", "fault"),
    [(b"oops", "not a JSON object"), (b"", "not a JSON object"), (b"[1]", "not a JSON object"),
     (b'"\xff"', "not a JSON object"), (b"{}", "no field 'n'")],
)  # fmt: skip
def test_a_broken_line_is_named_even_at_the_end(tmp_path, line, fault):
    (tmp_path / "lines.jsonl").write_bytes(b'{"n": 1}\n' + line + b"\n")
    with pytest.raises(ValueError, match=rf"lines\.jsonl, line 2: {fault}"):
        read_json_lines(tmp_path / "lines.jsonl", "n")


def test_a_gzipped_file_is_read_and_only_newlines_end_lines(tmp_path):
    (tmp_path / "lines.jsonl.gz").write_bytes(gzip.compress('{"text": "a\u2028b"}\n'.encode()))
    assert read_json_lines(tmp_path / "lines.jsonl.gz") == [{"text": "a\u2028b"}]


def test_lines_are_streamed_with_their_numbers(tmp_path):
    plain = tmp_path / "rows.jsonl"
    plain.write_text('{"a": 1}\n\n{"a": 2}')  # a user's last line may have no newline
    assert list(stream_json_lines(plain)) == [(1, {"a": 1}), (3, {"a": 2})]
    write_json_lines(tmp_path / "rows.jsonl.gz", [{"a": 1}])
    assert list(stream_json_lines(tmp_path / "rows.jsonl.gz")) == [(1, {"a": 1})]


def test_a_torn_file_is_named_after_its_last_line(tmp_path):
    file = tmp_path / "rows.jsonl.gz"
    write_json_lines(file, [{"a": 1}, {"a": 2}])
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"rows\.jsonl\.gz: the file is torn after line 2"):
        list(stream_json_lines(file))
