"""From the choices of the sweep's form to the command line that does it: what is started is what is shown."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from metavqa_cli.engine.configuration import DEFAULT_PRESET, preset_layer, preset_names, resolve_config
from metavqa_cli.methods.registry import BY_KEY
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.ranges import gamma_list, name_list, seed_list, share_list
from metavqa_cli.tui.commands import split_overrides

GUIDED = tuple(method.key for method in BY_KEY.values() if method.gammas and method.zero_shot)
COMPARED = 4  # cells of a seed that what is swept is compared with


@dataclass(frozen=True)
class SweepWish:
    """What a person filled in; "" is what the command does by itself."""

    methods: str = "task-ldm"
    gammas: str = "0:3:0.25"
    seeds: str = "1"
    descriptors: str = ""
    dataset: str = ""
    preset: str = DEFAULT_PRESET
    overrides: str = ""


def sweeping(wish: SweepWish) -> tuple[str, ...]:
    """The arguments of `metavqa` that measure what is wished. ``UsageError`` for an open quote in the overrides."""
    args = ["eval", "sweep"]
    given = {"--method": wish.methods, "--gamma": wish.gammas, "--seeds": wish.seeds,
             "--descriptors": wish.descriptors, "--dataset": wish.dataset, "--preset": wish.preset}  # fmt: skip
    for name, value in given.items():
        if value.strip():
            args += [name, value.strip()]
    for override in split_overrides(wish.overrides):
        args += ["--set", override]
    return tuple(args)


def check(wish: SweepWish) -> str:
    """How much there is to measure, in words. ``UsageError`` that says what is wrong with the wish."""
    methods = name_list([wish.methods]) if wish.methods.strip() else ["task-ldm"]
    for key in methods:
        if key not in GUIDED:
            raise UsageError(f"{key} has no guidance scale to sweep; choose from {', '.join(GUIDED)}")
    gammas = gamma_list([wish.gammas.strip() or "0:3:0.25"])
    seeds = seed_list(wish.seeds.strip() or "1")
    shares = share_list(wish.descriptors.strip() or None) or [1.0]
    resolve_config(
        wish.preset, None, split_overrides(wish.overrides), {"dataset.name": wish.dataset.strip() or None}
    )  # fmt: skip
    cells = len(seeds) * (len(methods) * len(shares) * (len(gammas) + 1) + COMPARED - 1 + len(shares))
    return (f"{cells} cells: {_count(methods, 'method')}, {len(gammas)} γ and the validated one, "
            f"{_count(seeds, 'seed')}, and what they are compared with; those that are finished are not measured "
            "again")  # fmt: skip


def _count(values: Any, what: str) -> str:
    return f"{len(values)} {what}{'s' * (len(values) != 1)}"


def fitting_preset(config: Mapping[str, Any]) -> str:
    """The preset that says most of a run's configuration and contradicts nothing in it; the usual one, if none fits."""
    fitting = {}
    for name in preset_names():
        said = list(_leaves(preset_layer(name).values))
        if all(_found(config, path) == value for path, value in said):
            fitting[name] = len(said)
    return max(fitting, key=lambda name: fitting[name], default=DEFAULT_PRESET)


def _leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _found(config: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config
