"""A stand-in for a GPU that refuses to be waited for: what a training step does with it, a real one does without stops.

Tensors "on the card" are ``OnCard``; their data are on the CPU. While a ``Watched`` is entered, whatever would make the
host wait for a card, or would fail on one, raises ``Waited``: reading a value, copies in either direction but by
``transfer.to_device``, results whose size depends on values, and arithmetic between the two memories.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

CARD = torch.device("cpu", 1)  # stands for the card's name: nothing else is called so
READS = {"item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "__index__", "__contains__", "__array__",
         "nonzero", "argwhere", "unique", "masked_select", "equal", "is_nonzero", "allclose"}  # fmt: skip
COPIES = {"to", "type_as", "copy_"}
INDEXING = {"__getitem__", "__setitem__", "index_select"}


class Waited(AssertionError):
    """The host waited for the card, or mixed the two memories."""


class OnCard(Tensor):
    """A tensor on the card."""


def on_card(tensor: Tensor) -> Tensor:
    """``tensor`` as if it had been copied to the card."""
    return tensor.as_subclass(OnCard) if not isinstance(tensor, OnCard) else tensor


class Watched(TorchFunctionMode):
    """Raises ``Waited`` while entered."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        card = any(isinstance(tensor, OnCard) for tensor in tensors)
        if name == "__get__" and func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return CARD if card else func(*args)
        if card:
            _refuse(name, tensors, args)
        if any(leaf == CARD for leaf in (*args, *kwargs.values()) if isinstance(leaf, torch.device)):
            if not card and tensors:
                raise Waited(f"{name} copies to the card; use to_device")
            args, kwargs = (tree_map(_here, part) for part in (args, kwargs))
            return tree_map(lambda leaf: on_card(leaf) if isinstance(leaf, Tensor) else leaf, func(*args, **kwargs))
        return func(*args, **kwargs)


def _here(leaf: Any) -> Any:
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


def _refuse(name: str, tensors: list[Tensor], args: Any) -> None:
    if name.startswith("_fused"):  # gradients come from autograd, which does not know of OnCard
        return
    if name in READS or name.startswith("bincount"):
        raise Waited(f"{name} reads from the card")
    if name in INDEXING and any(tensor.dtype == torch.bool for tensor in tensors[1:]):
        raise Waited(f"{name} by a mask has to know how much is true")
    if name == "where" and len(args) == 1:
        raise Waited("where without values is nonzero")
    hosts = [tensor for tensor in tensors if not isinstance(tensor, OnCard) and tensor.ndim]
    if hosts or (name in COPIES and len({type(tensor) for tensor in tensors}) > 1):
        raise Waited(f"{name} mixes the card's memory and the host's {[tuple(host.shape) for host in hosts]}")


def move(
    thing: Any,
    of: Callable[[Tensor], bool] = lambda tensor: tensor.dtype == torch.float32,
    seen: set[int] | None = None,
) -> None:
    """Put the tensors that ``thing`` holds, through its attributes, on the card, in place: those that ``of`` accepts.

    Integers and float64 stay: sizes, places and schedules belong to the host.
    """
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, nn.Module):
        for module in thing.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(on_card(parameter.detach()), parameter.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = on_card(buffer)
    values = thing if isinstance(thing, dict) else getattr(thing, "__dict__", {})
    for name, value in list(values.items()):
        if isinstance(value, Tensor) and of(value) and not isinstance(value, nn.Parameter):
            values[name] = on_card(value)
        elif isinstance(value, dict) or type(value).__module__.startswith("metavqa_cli"):
            move(value, of, seen)
