"""A manifest tells a whole folder from a damaged one, and a writer's words from what this machine reads."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlframe.record.manifest import WriteReport, first_fault, report_on, seal, unreadable


def report(folder: Path) -> WriteReport:
    """The report on state.json with 12 bytes, and on 200 bytes in a folder beside."""

    def write() -> list[Path]:
        (folder / "learner").mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"step": 10}))
        (folder / "learner" / "rank_0.pt").write_bytes(bytes(range(200)))
        return [folder / "state.json", folder / "learner" / "rank_0.pt"]

    return report_on("learner-0", write)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def change(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)


DAMAGE = [
    ("state.json", truncate, "state.json has 11 bytes, not 12"),
    ("state.json", change, "state.json has other content than was saved"),
    ("state.json", Path.unlink, "state.json is missing"),
    ("learner/rank_0.pt", truncate, "learner/rank_0.pt has 199 bytes, not 200"),
    ("learner/rank_0.pt", change, "learner/rank_0.pt has other content than was saved"),
    ("learner/rank_0.pt", Path.unlink, "learner/rank_0.pt is missing"),
    ("manifest.json", truncate, "manifest.json is cut short"),
    ("manifest.json", lambda file: file.write_bytes(b""), "manifest.json is cut short"),
    ("manifest.json", lambda file: file.write_bytes(b'{"\xff\xfe'), "manifest.json is cut short"),
    ("manifest.json", Path.unlink, "manifest.json is missing"),
]


def test_a_sealed_folder_is_whole_with_files_that_nobody_wrote(tmp_path: Path) -> None:
    written = report(tmp_path)
    (tmp_path / "learner" / "notes.txt").write_text("by a curious user")
    seal(tmp_path, written.files)
    assert first_fault(tmp_path) is None
    assert list(json.loads((tmp_path / "manifest.json").read_text())) == ["learner/rank_0.pt", "state.json"]


@pytest.mark.parametrize("name, damage, problem", DAMAGE)
def test_a_damaged_file_is_named_with_the_difference(tmp_path: Path, name, damage, problem) -> None:
    seal(tmp_path, report(tmp_path).files)
    damage(tmp_path / name)
    assert (first_fault(tmp_path) or "").startswith(problem)


def test_a_reader_finds_a_file_as_its_writer_says(tmp_path: Path) -> None:
    assert [unreadable(file) for file in report(tmp_path).files] == [None, None]


def test_a_reader_says_how_a_file_differs_from_its_writers_words(tmp_path: Path) -> None:
    state = report(tmp_path).files[0]
    assert unreadable(replace(state, bytes=13)) == "has 12 bytes, not 13"
    assert unreadable(replace(state, sha256="0" * 64)) == "has other content than was saved"
    assert unreadable(replace(state, path=tmp_path / "other.json")) == "does not see it"


def test_a_failed_write_is_a_report_with_the_reason(tmp_path: Path) -> None:
    def write() -> list[Path]:
        with open("/dev/full", "w", buffering=1) as full:
            full.write("a line\n")
        return []

    failed = report_on("learner-1", write)
    assert (failed.writer, failed.files) == ("learner-1", [])
    assert failed.error == "OSError: [Errno 28] No space left on device"
