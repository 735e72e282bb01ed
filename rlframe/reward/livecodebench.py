"""Tests of LiveCodeBench: JSON in public fields, and a compressed pickle of JSON in the private field."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from typing import Any, NoReturn

from rlframe.reward.cases import CaseTests, validated

MAX_BYTES = 256 << 20  # of unpacked tests
TOLERANCE = 1e-6  # of floats


def livecodebench(record: dict[str, Any]) -> CaseTests:
    """The public and private tests of a record. Raises ValueError, KeyError, TypeError."""
    tests = [test for field in ("public_test_cases", "private_test_cases") for test in unpacked(record.get(field))]
    metadata = record.get("metadata") or "{}"
    function = (json.loads(metadata) if isinstance(metadata, str) else metadata).get("func_name")
    kinds = {test.get("testtype", "functional" if function else "stdin") for test in tests}
    if kinds == {"functional"} and function is None:
        raise ValueError("metadata: names no func_name, and its tests are functional")
    if "stdin" in kinds or function is None:
        cases = [{"stdin": test["input"], "stdout": test["output"]} for test in tests]
        return validated(CaseTests, {"tolerance": TOLERANCE, "cases": cases})
    cases = [
        {
            "args": [json.loads(line) for line in test["input"].splitlines() if line.strip()],
            "returns": json.loads(test["output"]),
        }
        for test in tests
    ]
    settings = {"function": function, "numbers": "equal", "tolerance": TOLERANCE}
    return validated(CaseTests, {**settings, "cases": cases})


def unpacked(field: Any) -> list[dict[str, Any]]:
    """The tests in a field: a list, JSON, or base64 of zlib of a pickle of JSON. Raises ValueError."""
    if not isinstance(field, str):
        return field or []
    try:
        return json.loads(field) if field.strip() else []
    except ValueError:
        pass
    try:
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(base64.b64decode(field, validate=False), MAX_BYTES)
        if unpacking.unconsumed_tail:
            raise ValueError(f"they have more than {MAX_BYTES >> 20} MiB")
        text = _TextUnpickler(io.BytesIO(content)).load()
        return json.loads(text)
    except (ValueError, TypeError, EOFError, IndexError, zlib.error, pickle.UnpicklingError) as error:
        raise ValueError(
            f"private_test_cases: are neither JSON nor packed as LiveCodeBench packs them: {error}"
        ) from error


class _TextUnpickler(pickle.Unpickler):
    """Reads a pickle of a text. A pickle that names a class or function could run it, so it is refused."""

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"the pickle names {module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("the pickle refers to other objects")
