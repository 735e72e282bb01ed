"""Rewards of a chaos run: an asynchronous one, and one with a sandbox, whose processes are a worker's children."""

from __future__ import annotations

import asyncio

from pydantic import PrivateAttr

from rlframe.reward import Reward
from rlframe.sandbox import Limits, Program, Sandbox
from rlframe.types import Completion, Prompt

WAIT_S = 0.02  # as for the answer of a server


class Remainder(Reward):
    """A score in [0, 1) that looks random: the remainder of the length by 7, after a wait."""

    async def __call__(self, prompt: Prompt, completion: Completion) -> float:
        await asyncio.sleep(WAIT_S)
        return len(completion.token_ids) % 7 / 7


class Sandboxed(Reward):
    """The last digit of the length, computed by a program in a sandbox; of every fourth completion, to save time."""

    _sandbox: Sandbox | None = PrivateAttr(default=None)  # started in each worker

    def start(self) -> None:
        self._sandbox = Sandbox(Limits(case_s=0.5, program_s=0.5, memory_mib=256, output_bytes=100), "landlock")
        self._sandbox.start()

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        tokens = len(completion.token_ids)
        assert self._sandbox is not None
        if tokens % 4:
            return 0.0
        program = Program(source="print(int(input()) % 10)", function=None, inputs=[str(tokens)])
        [outcome] = self._sandbox.run(program)
        return float(outcome.output or 0) / 10

    def close(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()
