"""The exported folder's files, without ranks."""

import json

import torch
from transformers import AutoConfig

from rlframe.learner.export import Export


def test_an_export_of_dequantised_weights_does_not_say_that_they_are_quantised(tiny_model, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for file in tiny_model.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings | {"quantization_config": {"quant_method": "mxfp4"}}))
    weights = {"model.norm.weight": torch.ones(64, dtype=torch.bfloat16)}
    Export(weights=weights, adapters={}).write(tmp_path / "export", base=base, adapter=None)
    assert "quantization_config" not in json.loads((tmp_path / "export" / "config.json").read_text())
    assert AutoConfig.from_pretrained(tmp_path / "export").dtype == torch.bfloat16
