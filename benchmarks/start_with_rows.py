"""The start of a run on a million rows: seconds and memory until the first prompts, for each source of records.

    python benchmarks/start_with_rows.py [--rows 1000000] [--family NAME ...]

Makes the rows, in verl's layout, in a temporary folder, and opens them in a process of their own for each source, with
an empty cache and again with the cache that the first start has left. Also opens 10,000 puzzles of families of
reasoning_gym. A start reads every row: for the comparison with held-out conversations.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELDOUT, FIRST_PROMPTS = 128, 64
QUESTION = (
    "Natalia sold {} clips to her friends in April, and then she sold half as many in May. How many clips did she sell "
    "altogether? Let's think step by step and output the final answer after ####."
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--family", nargs="*", default=["chain_sum", "sudoku"], help="of reasoning_gym")
    parser.add_argument("--open", help=argparse.SUPPRESS)  # the JSON of a prompts config, in a process of its own
    options = parser.parse_args()
    if options.open:
        print(json.dumps(start(json.loads(options.open))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder, options.rows)
        for source in ("jsonl", "parquet", "hub"):
            for cache in ("empty", "filled"):
                figures = in_a_process(config_of(source, folder), folder / f"{source}-cache")
                print(json.dumps({"source": source, "rows": options.rows, "cache": cache, **figures}), flush=True)
        for family in options.family:
            figures = in_a_process(puzzles(family), folder / "no-cache")
            print(json.dumps({"source": "reasoning_gym", "family": family, **figures}), flush=True)


def start(settings: dict[str, Any]) -> dict[str, Any]:
    """Opens the prompts of a run and takes the first ones -> seconds, peak memory, and the console's lines."""
    from hydra import compose, initialize_config_dir
    from transformers import AutoTokenizer

    from rlframe.config.compose import conf_dir, load
    from rlframe.model import base_model
    from rlframe.prompts.config import PromptsConfig
    from rlframe.train.prompts import open_prompts

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        run = load(compose("train", ["experiment=smollm2_arithmetic"]))
    run = run.model_copy(update={"prompts": PromptsConfig.model_validate(settings)})
    tokenizer = AutoTokenizer.from_pretrained(base_model.prepare(run.model.path))
    before_mib = peak_mib()
    lines: list[str] = []
    began, cpu_began = time.perf_counter(), time.process_time()
    stream, _ = open_prompts(run, tokenizer, warn=lines.append)
    opened = time.perf_counter()
    for position in range(FIRST_PROMPTS):
        stream.at(position)
    return {
        "open_s": round(opened - began, 1),
        "cpu_s": round(time.process_time() - cpu_began, 1),  # less than open_s where others use the cores
        "first_prompts_s": round(time.perf_counter() - opened, 2),
        "imports_mib": before_mib,
        "peak_mib": peak_mib(),
        "lines": lines,
    }


def in_a_process(settings: dict[str, Any], cache: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--open", json.dumps(settings)]
    environment = os.environ | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def config_of(source: str, folder: Path) -> dict[str, Any]:
    """The prompts config of a source on the files of the folder, from its YAML."""
    settings = shipped(source)
    for part in ("train", "heldout"):
        fields = {"prompt_field": None, "messages_field": "prompt", "reference_field": "reward_model.ground_truth"}
        settings[part] |= fields | {"reference_pattern": None, "extra_fields": ["extra_info"], "size": None}
        if source == "hub":
            settings[part] |= {"path": str(folder / part), "subset": None, "split": "train"}
        else:
            settings[part]["path"] = str(folder / f"{part}.{source}")
    return settings


def puzzles(family: str) -> dict[str, Any]:
    settings = shipped("reasoning_gym")
    for part in ("train", "heldout"):
        settings[part] |= {"family": family, "params": {}}
    return settings | {"max_tokens": 100_000}


def shipped(source: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from rlframe.config.compose import conf_dir

    settings: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "prompts" / f"{source}.yaml"))
    return settings


def write_rows(folder: Path, rows: int) -> None:
    """Training and held-out rows: JSONL, Parquet with one row group (pandas), and with groups of 100 MB (datasets)."""
    import pyarrow
    from pyarrow import parquet

    for part, numbers in (("train", range(rows)), ("heldout", range(rows, rows + HELDOUT))):
        (folder / part).mkdir()  # the hub's source reads all files of a folder
        tables = []
        with (folder / f"{part}.jsonl").open("w") as lines:
            for first in range(0, len(numbers), 50_000):
                records = list(records_of(numbers[first : first + 50_000]))
                lines.writelines(json.dumps(record) + "\n" for record in records)
                tables.append(pyarrow.Table.from_pylist(records))
        table = pyarrow.concat_tables(tables)
        parquet.write_table(table, folder / f"{part}.parquet", row_group_size=len(table))
        parquet.write_table(table, folder / part / "rows.parquet", row_group_size=400_000)


def records_of(numbers: range) -> Iterator[dict[str, Any]]:
    for number in numbers:
        yield {
            "data_source": "clips",
            "prompt": [{"role": "user", "content": QUESTION.format(number)}],
            "ability": "math",
            "reward_model": {"ground_truth": str(number * 3 // 2), "style": "rule"},
            "extra_info": {"index": number, "split": "train"},
        }


def peak_mib() -> int:
    """Largest resident memory of this process so far, with the pages of mapped files."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) // 1024  # ru_maxrss would begin at the parent's memory


if __name__ == "__main__":
    main()
