"""Names, shapes and order of the base network's weights inside one flat vector."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

SCALING = "ntk-1"
"""Version of the arithmetic around the weights (NTK factors, residual); vectors mean nothing under another one."""


class AdapterWeights(NamedTuple):
    """The weights of f(x, W), each with any leading batch axes; the field order is the flat order (as released)."""

    W1: Float[Tensor, "*batch hidden embed"]
    W2: Float[Tensor, "*batch embed hidden"]
    b1: Float[Tensor, "*batch hidden"]
    b2: Float[Tensor, "*batch embed"]


@dataclass(frozen=True)
class WeightLayout:
    """Where W1, W2, b1 and b2 of an embed-hidden-embed adapter lie in a flat vector of ``size`` values."""

    embed: int
    hidden: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each part, in flat order."""
        E, H = self.embed, self.hidden
        return {"W1": (H, E), "W2": (E, H), "b1": (H,), "b2": (E,)}

    @cached_property
    def size(self) -> int:
        """P, the length of the flat vector."""
        return sum(self._sizes)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the names, the order, the shapes or the scaling."""
        return sha256(json.dumps([SCALING, list(self.shapes.items())]).encode()).hexdigest()[:16]

    @cached_property
    def _sizes(self) -> list[int]:
        return [prod(shape) for shape in self.shapes.values()]

    def unflatten(self, weights: Float[Tensor, "*batch params"]) -> AdapterWeights:
        """The parts of flat ``weights`` as views. Raises ValueError when the length is not ``size``."""
        if weights.shape[-1] != self.size:
            raise ValueError(
                f"the weights have {weights.shape[-1]} values, but an adapter with embed {self.embed} and "
                f"hidden {self.hidden} needs {self.size}; use the layout that they were made with"
            )
        # One split, not four slices: its backward pass is a single concatenation.
        parts = weights.split(self._sizes, dim=-1)
        shapes = self.shapes.values()
        return AdapterWeights(*(part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True)))

    def flatten(self, weights: AdapterWeights) -> Float[Tensor, "*batch params"]:
        """The exact inverse of ``unflatten``. Raises ValueError when a part has another shape."""
        for part, (name, shape) in zip(weights, self.shapes.items(), strict=True):
            found = tuple(part.shape[-len(shape) :])
            if found != shape:
                raise ValueError(f"{name} ends in shape {found}, but the layout needs {shape}")
        flat = (part.flatten(-len(shape)) for part, shape in zip(weights, self.shapes.values(), strict=True))
        return torch.cat(list(flat), dim=-1)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values that ``from_dict`` reads back."""
        return {**asdict(self), "fingerprint": self.fingerprint}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "WeightLayout":
        """The layout of a ``to_dict`` record. Raises ValueError when its fingerprint means other arithmetic."""
        sizes = record["embed"], record["hidden"]
        if not all(type(size) is int and 0 < size < 2**24 for size in sizes):
            raise ValueError(f"a weight layout of sizes {sizes} is none")
        layout = cls(*sizes)
        if record["fingerprint"] != layout.fingerprint:
            raise ValueError(
                f"weight layout {record['fingerprint']} was written by another version, "
                f"which arranges or scales weights unlike this one ({layout.fingerprint}); make the weights again"
            )
        return layout
