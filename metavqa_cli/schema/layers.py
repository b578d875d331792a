"""From several layers of values to one validated configuration, remembering where each value came from.

Layers are given from the weakest to the strongest: default, preset, checkpoint, user file, project file, environment,
``--set``, flags. Keys are dotted: ``ldm.hidden``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from metavqa_cli.schema.config import Config
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.strict import parse_toml
from metavqa_cli.schema.text import neutral

ENVIRONMENT_PREFIX = "METAVQA_"
PROGRAM_VARIABLES = frozenset(
    ENVIRONMENT_PREFIX + name
    for name in ("WORKSPACE", "COLOR", "ASCII", "DEBUG", "OFFLINE", "QUIET", "CONFIG", "PRESET", "VQA_URL")
)  # options of the program itself, not configuration values


MOST_SECTIONS = 60
LONGEST_SHOWN = 200  # characters of a key or value in an error


@dataclass(frozen=True)
class Layer:
    """Some values, nested by section, and where they come from ("preset tiny", "./metavqa.toml", "--set")."""

    name: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Resolved:
    """A valid configuration, and for each dotted key the name of the layer that decided it."""

    config: Config
    origins: dict[str, str]


def resolve(layers: Sequence[Layer]) -> Resolved:
    """Merge ``layers`` (weakest first) over the defaults and validate; ``UsageError`` lists every mistake."""
    default = Layer("default", Config().model_dump())
    values, origins = merge([default, *layers])
    return Resolved(validate(values, origins), origins)


def merge(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """The nested values where each key has its strongest layer's value, and the name of that layer for each key."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for dotted, value in flatten(layer.values):
            _put(values, dotted, value)
            if dotted not in origins:
                for hidden in [key for key in origins if key.startswith(f"{dotted}.") or dotted.startswith(f"{key}.")]:
                    del origins[hidden]
            origins[dotted] = layer.name
    return values, origins


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested values as ``(dotted key, value)``; an empty section has no leaves."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def parse_set(text: str) -> dict[str, Any]:
    """``"ldm.hidden=[512,1024,512]"`` as nested values. The value is TOML, else ``none`` for None, else plain text."""
    dotted, equals, written = text.partition("=")
    if not equals or not dotted.strip():
        raise UsageError(f"--set needs KEY=VALUE, for example ldm.hidden=[512,1024,512]; found {_short(text)!r}")
    values: dict[str, Any] = {}
    _put(values, dotted.strip(), parse_value(dotted.strip(), written.strip()))
    return values


def parse_value(dotted: str, text: str) -> Any:
    """What ``text`` means for the key ``dotted``: itself where the key holds text, else TOML, None, or itself."""
    if _leaf_types().get(dotted) is str:
        return text
    if text.lower() in ("none", "null"):
        return None
    try:
        parsed = parse_toml(f"value = {text}")
    except ValueError:
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def from_env(environ: Mapping[str, str]) -> Layer:
    """The layer of ``METAVQA_SECTION__FIELD`` variables (and ``METAVQA_SEED``), in any case."""
    known = {dotted.lower(): dotted for dotted in _leaf_types()}
    values: dict[str, Any] = {}
    for name in sorted(environ):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in PROGRAM_VARIABLES:
            lowered = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            dotted = known.get(lowered, lowered)
            _put(values, dotted, parse_value(dotted, environ[name]))
    return Layer("environment", values)


def validate(values: dict[str, Any], origins: Mapping[str, str] | None = None) -> Config:
    """The configuration, or one ``UsageError`` that lists every mistake: key, value, origin, and what is expected."""
    try:
        return Config.model_validate(values)
    except ValidationError as invalid:
        mistakes = [_describe(dict(error), origins or {}) for error in invalid.errors(include_url=False)]
    if len(mistakes) == 1:
        raise UsageError(f"the configuration has a mistake: {mistakes[0]}")
    raise UsageError("\n  ".join([f"the configuration has {len(mistakes)} mistakes:", *mistakes]))


def _describe(error: dict[str, Any], origins: Mapping[str, str]) -> str:
    names = [str(part) for part in error["loc"] if isinstance(part, str)]
    dotted = ".".join(names)
    shown = neutral(_short(dotted), one_line=True)
    key = shown + "".join(f"[{part}]" for part in error["loc"] if isinstance(part, int))
    origin = next((origins[known] for known in origins if f"{known}.".startswith(f"{dotted}.")), None)
    where = f" (from {origin})" if origin else ""
    if error["type"] == "extra_forbidden":
        return f"{key}{where} is not a known key{nearest(dotted)}"
    expected = str(error["msg"]).replace("Input should be", "expected", 1).removeprefix("Value error, ")
    field = describe_fields().get(dotted)
    return f"{key} = {_short(repr(error['input']))}{where}: {expected}" + (f" ({field})" if field else "")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def nearest(dotted: str) -> str:
    """``; did you mean ldm.hidden?`` for the nearest known key or section, by its full name or its last part."""
    known = list(_leaf_types())
    sections = get_close_matches(dotted, {key.rpartition(".")[0] for key in known} - {""}, n=1, cutoff=0.6)
    last = {key.rpartition(".")[2]: key for key in known}
    fits = get_close_matches(dotted, known, n=1, cutoff=0.75)
    fits = fits or (sections if "." not in dotted else [])
    fits = fits or [last[name] for name in get_close_matches(dotted.rpartition(".")[2], last, n=1, cutoff=0.6)]
    fits = fits or get_close_matches(dotted, known, n=1, cutoff=0.0)
    return f"; did you mean {fits[0]}?"


def describe_fields() -> dict[str, str]:
    """The sentence that describes each dotted key."""
    return {dotted: field.description or "" for dotted, field in _leaves(Config)}


def _leaf_types() -> dict[str, Any]:
    return {dotted: field.annotation for dotted, field in _leaves(Config)}


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one leaf in nested values; a value in the way of a section is replaced by the section."""
    *sections, last = dotted.split(".")
    if len(sections) > MOST_SECTIONS:
        raise UsageError(f"the key {_short(dotted)!r} has {len(sections) + 1} parts; a key has two, as ldm.hidden")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[last] = value
