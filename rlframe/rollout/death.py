"""`EngineDead`, and which errors of a call mean that its engine is dead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ray.exceptions import RayError, RayTaskError

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


class EngineDead(RuntimeError):
    """The engine's actor lives, and cannot sample any more: a process of vLLM has died."""


def cause_of_death(error: Exception) -> str | None:
    """The first line of an error that means the death of an engine, or of its node; None: the engine lives."""
    if isinstance(error, EngineDead) or (isinstance(error, RayError) and not isinstance(error, RayTaskError)):
        name = "EngineDead" if isinstance(error, EngineDead) else type(error).__name__
        return f"{name}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    return None


@contextmanager
def deaths_of(llm: AsyncLLM, name: str) -> Iterator[None]:
    """Raises EngineDead in place of any error after vLLM's processes have died."""
    try:
        yield
    except Exception as error:
        if llm.errored:
            raise EngineDead(f"vLLM's processes of {name} have died: {error}") from error
        raise
