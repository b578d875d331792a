"""Which arithmetic each part computes in. No part of a run's identity, but its manifest and result say which it was.

Matrix products are all that differs: parameters, their averages, the optimiser and the schedules stay in fp32.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch

from metavqa_cli.schema.errors import DeviceError

Asked = Literal["auto", "fp32", "bf16"]
Arithmetic = Literal["fp32", "tf32", "bf16"]
"""``tf32``: operands of an fp32 product cut to 10 bits of mantissa by a GPU; ``bf16``: to 7 bits, sums in fp32."""

EXACT = ("zoo", "identify", "measuring")
"""Parts without a training loop or a denoiser: never in bf16."""
TOLERANT: tuple[str, ...] = ("sampling",)
"""Parts that auto computes in bf16: where accuracy allows (``python -m tests.bench.precision``: 0.00 points, 95 %
−0.01 to +0.02) and less is read. HyperLDM and the HVAE lose nothing in training either (+0.19 and +0.49), but a step of
theirs is bound by the optimiser's traffic, to which bf16 only adds casts (``tests/bench/costs.py``). The baselines are
bound by launches, and lose: multitask 0.4, FOMAML 0.8 points; HyperCLIP names fewer questions (2.2 for 3.4 %)."""


def arithmetic(asked: Asked, device: torch.device, part: str) -> Arithmetic:
    """What ``part`` computes in: a baseline's method, a generator's objective, ``sampling``,
    ``measuring``, or a kind of run.

    auto is bf16 for the parts of ``TOLERANT`` on a GPU that has it; what stays in fp32 there is TF32 unless fp32 was
    asked for. ``DeviceError`` when bf16 was asked for and the device cannot.
    """
    full: Arithmetic = "tf32" if device.type == "cuda" and asked != "fp32" else "fp32"
    if asked == "bf16" and not _has_bf16(device):
        raise DeviceError(f"the device {str(device)!r} cannot compute in bf16; use --precision auto or fp32")
    if part in EXACT or asked == "fp32":
        return full
    wanted = asked == "bf16" or (device.type == "cuda" and part in TOLERANT and _has_bf16(device))
    return "bf16" if wanted else full


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu"  # everywhere, though only some are faster with it


@contextmanager
def computing(device: torch.device, how: Arithmetic) -> Iterator[None]:
    """Matrix products of the body in ``how``; what they return may be of that type."""
    if how != "bf16":  # not every device knows autocast, even to leave it off
        yield
        return
    with torch.autocast(device.type, torch.bfloat16):
        yield


def parts_of(kind: str, variant: str | None, parents: Sequence[str] = ()) -> tuple[str, ...]:
    """The parts, as ``arithmetic`` knows them, that a run of ``kind`` and ``variant`` has, made from parents in
    these roles: a HyperLDM is trained, and samples to choose γ."""
    if kind in ("baseline", "hvae"):
        return (str(variant),)
    if kind in ("eval", "cell", "novelty"):
        named = {"eval": [*parents], "cell": [str(variant)], "novelty": ["ldm"]}[kind]
        samples = any("ldm" in name for name in named)
        return ("sampling" if samples else "measuring",)
    return ("ldm", "sampling") if kind == "ldm" else (kind,)
