"""A model's digest is equal for copies, and another one after any change at the ends of its files."""

import shutil
from pathlib import Path

from rlframe.model.folder_digest import folder_digest


def test_a_copy_has_the_same_digest_and_a_changed_weight_another(tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    (copy / "README.md").write_text("no part of the model")
    assert folder_digest(copy) == folder_digest(tiny_model)
    file = copy / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert folder_digest(copy) != folder_digest(tiny_model)
