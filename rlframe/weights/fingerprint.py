"""A checksum that the device of a tensor computes, for weights that never pass through a host's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_WORDS = 1 << 22  # 32 MiB of a tensor at a time, so that the products take little memory


def fingerprint(tensor: Tensor) -> Tensor:
    """[] int64, on the tensor's device: the sum of 8-byte words w[i] times 2i + 1, modulo 2^64.

    A single changed word always changes the sum, because an odd factor has an inverse modulo 2^64; exchanged words
    change it because their factors differ. Costs about six passes over the tensor's memory, and no copy to the host:

        words 5 0 7    5 * 1 + 0 * 3 + 7 * 5 = 40        words 0 5 7    0 * 1 + 5 * 3 + 7 * 5 = 50
    """
    import torch

    values = tensor.detach().contiguous().view(-1).view(torch.uint8)
    if padding := -len(values) % 8:
        values = torch.nn.functional.pad(values, (0, padding))
    elif values.storage_offset() % 8:  # a view of words begins at a whole word
        values = values.clone()
    words = values.view(torch.int64)
    factors = torch.arange(1, 2 * min(len(words), CHUNK_WORDS), 2, device=tensor.device)  # of the first chunk
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for start in range(0, len(words), CHUNK_WORDS):
        chunk = words[start : start + CHUNK_WORDS]
        total += (chunk * factors[: len(chunk)]).sum() + 2 * start * chunk.sum()
    return total


def read_fingerprints(fingerprints: dict[str, Tensor]) -> dict[str, int]:
    """The values by name, in a single copy from the device."""
    import torch

    if not fingerprints:
        return {}
    values = torch.stack(list(fingerprints.values())).tolist()
    return dict(zip(fingerprints, values, strict=True))
