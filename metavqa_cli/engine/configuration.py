"""The configuration of a job, from files, the environment and what was typed. Without torch."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metavqa_cli.schema.errors import JobError, UsageError
from metavqa_cli.store.home import own_folder

if TYPE_CHECKING:
    from metavqa_cli.schema.layers import Layer, Resolved

DEFAULT_PRESET = "tiny"
PROJECT_FILE = Path("metavqa.toml")
PRESETS_DIR = Path(__file__).parents[1] / "presets"


def preset_names() -> list[str]:
    """The presets in the package, sorted."""
    return sorted(path.stem for path in PRESETS_DIR.glob("*.toml"))


def user_file() -> Path | None:
    """The person's own configuration file, whether it exists or not; None for somebody without a home."""
    own = own_folder("config")
    return own and own / "config.toml"


def resolve_config(
    preset: str = DEFAULT_PRESET,
    config_file: Path | None = None,
    sets: Sequence[str] | None = None,
    flags: Mapping[str, Any] | None = None,
    *,
    resumed: Mapping[str, Any] | None = None,
) -> "Resolved":
    """The configuration of a job, with the origin of every value.

    From the strongest: ``flags`` (dotted key to value; None is "not given"), ``sets``, ``METAVQA_*`` variables,
    ``config_file`` or ``./metavqa.toml``, the person's own file, ``resumed`` (a run's own configuration), the preset,
    the defaults. Raises ``UsageError`` that lists every mistake.
    """
    from metavqa_cli.schema.layers import Layer, from_env, parse_set, resolve

    layers = [preset_layer(preset), Layer("resumed run", dict(resumed or {})), *file_layers(config_file)]
    layers.append(from_env(os.environ))
    layers += [Layer("--set", parse_set(text)) for text in sets or ()]
    given = {dotted: value for dotted, value in (flags or {}).items() if value is not None}
    layers += [Layer("flag", _nested(dotted, value)) for dotted, value in given.items()]
    return resolve(layers)


def preset_layer(name: str) -> "Layer":
    """The values of a preset of the package."""
    from metavqa_cli.schema.layers import Layer

    names = preset_names()
    if name not in names:
        from difflib import get_close_matches

        near = get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no preset {name!r}{hint} The presets are {', '.join(names)}")
    return Layer(f"preset {name}", read_toml(PRESETS_DIR / f"{name}.toml"))


def file_layers(config_file: Path | None) -> "list[Layer]":
    """The person's own file (if any), then ``config_file`` or else ``./metavqa.toml`` (if any)."""
    from metavqa_cli.schema.layers import Layer

    places = (user_file(), config_file or PROJECT_FILE)
    paths = [path for path in places if path is not None and (path == config_file or path.is_file())]
    return [Layer(str(path), read_toml(path)) for path in paths]


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file; ``UsageError`` says why there are none, ``JobError`` where the disk is at fault."""
    from metavqa_cli.schema.strict import parse_toml

    try:
        return parse_toml(path.read_bytes())
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; `metavqa config init` writes a new one") from None
    except (IsADirectoryError, PermissionError) as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; name a file that you may read") from None
    except OSError as error:  # the disk or the system is at fault, not what was typed
        raise JobError(f"cannot read {path}: {error.strerror}; it may still be whole: run the command again") from None


def _nested(dotted: str, value: Any) -> dict[str, Any]:
    for name in reversed(dotted.split(".")):
        value = {name: value}
    return dict(value)
