"""Explicit randomness: seeds derived from what they are for, never from a global state.

A seed is a function of named parts (the user's seed, the scan, the step), so a result does not depend on
batch size, number of workers, order of processing, or on a crash and resume in between.
"""

import hashlib

import torch


def derive_seed(*parts: int | str | bytes) -> int:
    """Return a 63-bit seed that depends on every part and on their order.

    Example:
        >>> derive_seed(0, "sub-01", 500) == derive_seed(0, "sub-01", 500)
        True
        >>> derive_seed(0, "sub-01") == derive_seed(0, "sub-02")
        False
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return int.from_bytes(digest.digest(), "little") >> 1


def make_generator(*parts: int | str | bytes, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator on `device`, seeded with `derive_seed(*parts)`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


def branch(generator: torch.Generator, *parts: int | str | bytes) -> torch.Generator:
    """Return a generator on the CPU with its own stream: a function of what `generator` was seeded with and `parts`.

    Nothing is drawn from `generator`, and what was drawn before does not matter, so an option may come and go without
    changing what the others draw.
    """
    return make_generator(generator.initial_seed(), *parts)


def draw_seeds(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw `count` independent 63-bit seeds, shape `(count,)`, int64, on the CPU."""
    high = torch.iinfo(torch.int64).max
    return torch.randint(high, (count,), generator=generator, device=generator.device).cpu()
