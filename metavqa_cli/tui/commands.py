"""From the choices of a form to the command line that does it: what is started is what is shown."""

import shlex
from dataclasses import dataclass
from typing import Any

from metavqa_cli.engine.configuration import preset_layer, preset_names, resolve_config
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.tui.feed import RunView

GENERATORS = ("", "task", "hvae", "hnet")
CHOICES: dict[str, tuple[str, tuple[str, ...]]] = {  # what is trained: its own option, and that option's values
    "ldm": ("--on", GENERATORS),
    "hyperclip": ("--on", GENERATORS),
    "regression": ("--on", (*GENERATORS, "zoo")),
    "hvae": ("--objective", ("", "task", "weights")),
    "baseline": ("--method", ("", "multitask", "mnet-maml", "mnet-fomaml", "hnet-maml", "cond-multitask", "film",
                              "cond-hnet-maml")),
    "zoo": ("", ("",)),
}  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """What a person filled in; "" is what the command does by itself."""

    kind: str = "ldm"
    choice: str = ""
    preset: str = "tiny"
    gamma: str = ""
    seed: str = ""
    dataset: str = ""
    overrides: str = ""
    with_parents: bool = True


def first_wish(dataset: str | None) -> Wish:
    """What the form begins with: on ``dataset``, with the preset that is about it; without one, as configured."""
    if dataset is None:
        return Wish()
    about = [name for name in preset_names() if preset_layer(name).values.get("dataset", {}).get("name") == dataset]
    return Wish(dataset=dataset, preset=about[0] if about else Wish.preset)


def training(wish: Wish) -> tuple[str, ...]:
    """The arguments of `metavqa` that train what is wished. ``UsageError`` for an open quote in the overrides."""
    option, _ = CHOICES[wish.kind]
    args = ["train", wish.kind]
    given = {option: wish.choice, "--gamma": wish.gamma if wish.kind == "ldm" else "", "--seed": wish.seed,
             "--dataset": wish.dataset, "--preset": wish.preset}  # fmt: skip
    for name, value in given.items():
        if name and value.strip():
            args += [name, value.strip()]
    for override in split_overrides(wish.overrides):
        args += ["--set", override]
    return (*args, "--with-parents") if wish.with_parents else tuple(args)


def check(wish: Wish) -> None:
    """``UsageError`` that lists what is wrong with a training as it is wished."""
    flags: dict[str, Any] = {"dataset.name": wish.dataset.strip() or None}
    numbers = (("seed", wish.seed, int), ("ldm.gamma", wish.gamma if wish.kind == "ldm" else "", float))
    for name, text, kind in numbers:
        try:
            flags[name] = kind(text) if text.strip() else None
        except ValueError:
            whole = "a whole number" if kind is int else "a number"
            raise UsageError(f"{name} is {whole}, which {text!r} is not") from None
    resolve_config(wish.preset, None, split_overrides(wish.overrides), flags)


def split_overrides(text: str) -> list[str]:
    """ "ldm.hidden=[64,64] seed=1" as its parts; quotes keep spaces."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"the overrides {text!r} cannot be read ({error}); close the quote") from None


def resuming(view: RunView) -> tuple[str, ...]:
    """The arguments that go on with an unfinished run. ``UsageError`` when there is nothing to go on with."""
    if view.state == "finished":
        raise UsageError(f"run {view.id} is finished; there is nothing to go on with")
    if view.state == "running":
        raise UsageError(f"run {view.id} is running already")
    if view.kind not in CHOICES:
        raise UsageError(f"run {view.id} is of kind {view.kind}, which begins again: start the command that made it")
    return "train", view.kind, "--resume", view.id
