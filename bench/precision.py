"""Half precision where it is faster."""

from __future__ import annotations

from functools import lru_cache

import torch


def mixed(device: torch.device, *, enabled: bool = True) -> torch.autocast:
    """Autocast to bfloat16 on a device that multiplies in it; elsewhere everything stays as it is.

    A processor without such instructions emulates them, 35 times slower than single precision.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and multiplies_bfloat16(device))


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for it; every other than a processor is taken to."""
    return device.type != "cpu" or _native()


@lru_cache(maxsize=1)
def _native() -> bool:
    """Whether this processor multiplies bfloat16, by AVX-512 or AMX on x86, by its BF16 extension on ARM."""
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
