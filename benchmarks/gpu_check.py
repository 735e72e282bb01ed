"""What only a GPU can show, in at most ten minutes on one card, without network: a table of passed, failed, skipped.

    python benchmarks/gpu_check.py                      # every part that this machine can run
    python benchmarks/gpu_check.py --only attention     # one part; repeat --only for more
    python benchmarks/gpu_check.py --json check.json    # the table in a file too
    python benchmarks/gpu_check.py --small              # tiny shapes on the CPU, as the tests run it

The learner's parts need torch, transformers and DeepSpeed only; the engine's parts also Ray, vLLM and the rest of
rlframe's packages, and are skipped without them. Each part is a process of its own with a time limit, so that a part
that crashes or hangs takes no other part with it. Exit code 1: a part failed; 2: no GPU.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu_parts import PARTS, Figure, Part, Skip  # noqa: E402

TOTAL_S = 600  # for all parts
CPU_PATIENCE = 3.0  # times the limits of parts on a CPU, which tests of other parts may share
ERROR_LINES = 12  # of a traceback's end


class Result(NamedTuple):
    """A part's row of the table."""

    name: str
    outcome: str  # passed, failed, skipped
    seconds: float
    figures: list[Figure]
    reason: str  # of a skipped or failed part

    def lines(self) -> list[str]:
        head = f"{self.name:12} {self.outcome:8} {self.seconds:6.1f} s"
        details = [str(figure) for figure in self.figures] + self.reason.splitlines()
        first, *rest = details or [""]
        return [f"{head}  {first}".rstrip(), *(f"{'':32}{line}" for line in rest)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(PARTS), help="run this part; may be repeated")
    parser.add_argument("--small", action="store_true", help="tiny shapes on the CPU, also where there is a GPU")
    parser.add_argument("--json", type=Path, help="also write the table into this file")
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)  # of a part's own process
    arguments = parser.parse_args()
    if arguments.result:
        faulthandler.register(signal.SIGTERM, chain=True)  # the log of a part that hangs ends with its stack
        run_part(PARTS[arguments.only[0]], arguments.small, arguments.result)
        return 0
    if not arguments.small and not gpu_names():
        print("nvidia-smi names no GPU here; --small runs tiny shapes on the CPU", file=sys.stderr)
        return 2
    print(f"{device(arguments.small)}\n", flush=True)
    results: list[Result] = []
    patience = CPU_PATIENCE if arguments.small else 1.0
    for name in arguments.only or PARTS:
        part, left_s = PARTS[name], patience * TOTAL_S - sum(result.seconds for result in results)
        part = part._replace(limit_s=patience * part.limit_s)
        results.append(in_process(name, part, left_s, small=arguments.small))
        print("\n".join(results[-1].lines()), flush=True)
    if arguments.json:
        rows = [result._asdict() | {"figures": [figure._asdict() for figure in result.figures]} for result in results]
        arguments.json.write_text(json.dumps({"device": device(arguments.small), "parts": rows}, indent=1))
    counts = [sum(result.outcome == outcome for result in results) for outcome in ("passed", "failed", "skipped")]
    print("\n{} passed, {} failed, {} skipped in {:.0f} s".format(*counts, sum(result.seconds for result in results)))
    return 1 if counts[1] else 0


def in_process(name: str, part: Part, left_s: float, *, small: bool) -> Result:
    """Runs a part in a process of its own, within its limit and the `left_s` seconds that other parts have left."""
    if part.needs_gpu and small:
        return Result(name, "skipped", 0.0, [], "needs a GPU")
    if left_s < part.limit_s / 2:
        return Result(name, "skipped", 0.0, [], f"{left_s:.0f} s are left; run it alone by --only {name}")
    limit_s = min(part.limit_s, left_s)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "result.json", Path(folder) / "log"
        command = [sys.executable, __file__, "--only", name, "--result", str(path), *(["--small"] if small else [])]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment(small),
                start_new_session=True,
            )  # fmt: skip
            timed_out = not ended(process, limit_s)
        seconds = time.monotonic() - started
        answer = json.loads(path.read_text()) if path.is_file() else {"figures": [], "skipped": "", "error": ""}
        figures = [Figure(**figure) for figure in answer["figures"]]
        reason = answer["skipped"] or answer["error"]
        if timed_out:
            reason = f"not done in {limit_s:g} s\n{tail(log.read_text())}"
        elif process.returncode:
            reason = f"exit code {process.returncode}\n{tail(log.read_text())}"
    failed = timed_out or process.returncode or answer["error"] or not all(figure.holds for figure in figures)
    outcome = "skipped" if answer["skipped"] else "failed" if failed else "passed"
    return Result(name, outcome, seconds, figures, reason)


def ended(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    """True if the process ends in time; else ends it, and what it started."""
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return False
    return True


def run_part(part: Part, small: bool, path: Path) -> None:
    """Writes the part's figures to `path` as they come, then the reason of a skip or the end of a traceback."""
    figures: list[Figure] = []

    def write(skipped: str = "", error: str = "") -> None:
        rows = [figure._asdict() for figure in figures]
        path.write_text(json.dumps({"figures": rows, "skipped": skipped, "error": error}))

    try:
        for figure in part.run(small):
            figures.append(figure)
            write()
    except Skip as reason:
        write(skipped=str(reason))
    except Exception:
        write(error=tail(traceback.format_exc()))


def environment(small: bool) -> dict[str, str]:
    """Of a part's process: no network, and with `small` no GPU."""
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    on_cpu = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"} if small else {}
    return os.environ | offline | on_cpu | {"PYTHONPATH": path}


def device(small: bool) -> str:
    """The card and the versions, from `nvidia-smi` and the packages' metadata."""
    from importlib.metadata import PackageNotFoundError, version

    def installed(package: str) -> str:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            return f"no {package}"

    card = "CPU, tiny shapes" if small else "; ".join(gpu_names())
    return ", ".join([card, *map(installed, ("torch", "transformers", "deepspeed", "ray", "vllm"))])


def gpu_names() -> list[str]:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.strip().splitlines()
    except OSError:
        return []


def tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-ERROR_LINES:])


if __name__ == "__main__":
    sys.exit(main())
