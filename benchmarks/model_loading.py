"""The loading and the export of a large model by learner ranks: peaks of a rank's memory, and times.

    python benchmarks/model_loading.py                       # Qwen3-0.6B's shapes in 4 files, 2 ranks
    python benchmarks/model_loading.py --ranks 4 --experts 64 # a mixture: each layer has 64 experts

The model has random weights. Memory is a process's own pages (RssAnon), so not pages of the files, which the system
keeps for all processes. `read` is the time in which as many processes read the same files, 1 / ranks each. An export
is what a rank copies before a thread writes it; there the embeddings are a layer too.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from torch import distributed

LEARNER = Path(__file__).parents[1] / "conf" / "learner" / "zero3.yaml"
MIB = 1 << 20
INTERVAL_S = 0.001  # between looks at a process's memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """One rank's loading and export; memory in MiB."""

    shard: float
    largest_layer: float  # of the whole model, without the embeddings
    embeddings: float
    peak: float  # of loading, over the memory before
    seconds: float
    read_seconds: float  # of 1 / ranks of the files, by plain reads
    export: float  # this rank's tensors
    export_peak: float  # over the memory before
    export_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--intermediate", type=int, default=3072, help="of a layer, or of an expert")
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--experts", type=int, default=0, help="of a layer; 0: a dense model")
    arguments = vars(parser.parse_args())
    ranks, files = arguments.pop("ranks"), arguments.pop("files")
    with tempfile.TemporaryDirectory() as folder:
        size = make_model(Path(folder), files=files, **arguments)
        print(f"{size / 1e9:.2f} B parameters in bfloat16, {files} files, {ranks} ranks")
        loadings = measure(Path(folder), ranks)
    columns = ["rank", "shard MiB", "peak", "shard + 2 layers", "load s", "read s"]
    columns += ["export MiB", "peak", "export + 2 layers", "export s"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for rank, loading in enumerate(loadings):
        memory = (loading.shard, loading.peak, loading.shard + 2 * loading.largest_layer)
        largest = max(loading.largest_layer, loading.embeddings)
        exported = (loading.export, loading.export_peak, loading.export + 2 * largest)
        cells = [
            *(f"{mebibytes:.0f}" for mebibytes in memory),
            f"{loading.seconds:.2f}",
            f"{loading.read_seconds:.2f}",
            *(f"{mebibytes:.0f}" for mebibytes in exported),
            f"{loading.export_seconds:.2f}",
        ]
        print(f"| {rank} | {' | '.join(cells)} |")


def make_model(
    folder: Path, *, files: int, layers: int, hidden: int, intermediate: int, vocabulary: int, experts: int
) -> int:
    """Writes a Qwen3 or Qwen3-MoE with random weights -> its parameters."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3MoeConfig

    from rlframe.model.checkpoint_names import to_checkpoint

    shapes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 128,
        "head_dim": 128,
        "tie_word_embeddings": True,
    }
    config = (
        Qwen3MoeConfig(num_experts=experts, moe_intermediate_size=intermediate, num_experts_per_tok=2, **shapes)
        if experts
        else Qwen3Config(intermediate_size=intermediate, **shapes)
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    torch.manual_seed(0)
    named = to_checkpoint(model, dict(model.named_parameters()))
    size = sum(tensor.numel() for tensor in named.values())
    weight_map: dict[str, str] = {}
    part: dict[str, Any] = {}
    written = 0
    for name, tensor in named.items():
        part[name] = torch.empty(tensor.shape, dtype=torch.bfloat16).uniform_(-0.1, 0.1)
        written += tensor.numel()
        if written * files >= size * (len(set(weight_map.values())) + 1):
            file = f"model-{len(set(weight_map.values())) + 1:05d}-of-{files:05d}.safetensors"
            save_file(part, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(part, file)
            part = {}
    index = {"metadata": {"total_size": 2 * size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return size


def measure(folder: Path, ranks: int) -> list[Loading]:
    """Loads the model at `folder` by processes of their own."""
    from torch import multiprocessing

    from rlframe.actors.sockets import free_address

    # Freed memory goes back to the system at once, as that of large tensors always does.
    environment = {"MALLOC_MMAP_THRESHOLD_": str(MIB), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    context = multiprocessing.get_context("spawn")
    results: Any = context.SimpleQueue()
    address = free_address("127.0.0.1")
    processes = [context.Process(target=_load, args=(rank, ranks, folder, address, results)) for rank in range(ranks)]
    with patch.dict(os.environ, environment):
        for process in processes:
            process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a rank ended with code {process.exitcode}")
    return [loading for _, loading in sorted((results.get() for _ in processes), key=lambda result: result[0])]


def _load(rank: int, ranks: int, folder: Path, address: str, results: Any) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE=str(ranks))
    import deepspeed

    from rlframe.learner import meeting, zero3
    from rlframe.learner.config import LearnerConfig
    from rlframe.learner.export import gather
    from rlframe.learner.loading import load_shards
    from rlframe.learner.source import Zero3Source
    from rlframe.model.policy import PREFIX, Policy, empty_model

    choices = {"ranks": ranks, "dtype": "bfloat16", "gpus": 0}
    config = LearnerConfig.model_validate(yaml.safe_load(LEARNER.read_text()) | choices)
    meeting.meet(address, "gloo", rank=rank, ranks=ranks, timeout=timedelta(seconds=60))
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
    read_seconds = _read(folder, rank, ranks)
    model: Any = empty_model(folder, torch.bfloat16, "rlframe_packed", "shared")
    largest = max(sum(parameter.nbytes for parameter in layer.parameters()) for layer in model.model.layers)
    embeddings = model.get_input_embeddings().weight.nbytes
    deepspeed.zero.Init(module=torch.nn.Module(), config_dict_or_path=zero3.settings(config))  # imports its parts
    with _Watch() as loading:
        load_shards(model, folder, zero3.settings(config))
    shard = sum(parameter.ds_tensor.nbytes for parameter in model.parameters())
    policy = Policy(model, torch.float32, "shared")
    source = Zero3Source(policy, PREFIX)
    with _Watch() as exporting:
        export = gather(policy, source, rank, ranks)
    measured = Loading(
        shard=shard / MIB,
        largest_layer=largest / MIB,
        embeddings=embeddings / MIB,
        peak=loading.peak,
        seconds=loading.seconds,
        read_seconds=read_seconds,
        export=sum(tensor.nbytes for tensor in export.weights.values()) / MIB,
        export_peak=exporting.peak,
        export_seconds=exporting.seconds,
    )
    results.put((rank, measured))
    distributed.barrier()


def _read(folder: Path, rank: int, ranks: int) -> float:
    """Seconds to read this rank's part of each file into memory, from the page cache."""
    for _ in range(2):  # the first time brings the files into the page cache
        started = time.perf_counter()
        for file in sorted(folder.glob("*.safetensors")):
            length = file.stat().st_size // ranks
            buffer = bytearray(length)
            with file.open("rb", buffering=0) as stream:
                stream.seek(rank * length)
                stream.readinto(buffer)
        seconds = time.perf_counter() - started
    return seconds


def _own_pages() -> float:
    """MiB of this process's memory without the pages of files."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


class _Watch:
    """The time of a `with` block on all ranks, and the largest memory of this process inside, looked at by a thread."""

    def __enter__(self) -> _Watch:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        distributed.barrier()
        self.peak = 0.0
        self._before = _own_pages()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self._end.set()
        self._thread.join()
        distributed.barrier()

    def _look(self) -> None:
        while not self._end.wait(INTERVAL_S):
            self.peak = max(self.peak, _own_pages() - self._before)


if __name__ == "__main__":
    main()
