"""What the dashboard remembers of a person: theme, picture renderer, and the pinned and marked runs of each workspace.

One small JSON file of their own. One that is damaged, or cannot be written, costs nothing but the memory.
"""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.schema.strict import parse_json
from metavqa_cli.store.atomic import write_json

DEFAULT_THEME = "textual-dark"


@dataclass
class Settings:
    """``pinned`` and ``marked``: run ids under the path of their workspace."""

    theme: str = DEFAULT_THEME
    pictures: str = "half-blocks"
    pinned: dict[str, list[str]] = field(default_factory=dict)
    marked: dict[str, list[str]] = field(default_factory=dict)


def load(path: Path | None) -> tuple[Settings, str | None]:
    """The settings in ``path``, and a sentence about what is wrong with it; defaults in place of what is unsound.

    Without a path they are the defaults.
    """
    if path is None:
        return Settings(), None
    try:
        record = parse_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return Settings(), None
    except (OSError, ValueError) as error:
        return Settings(), f"the dashboard's settings {path} cannot be read ({error}); the usual ones are used"
    known = record if isinstance(record, dict) else {}
    sound = {one.name: known[one.name] for one in fields(Settings) if _is_sound(one.name, known.get(one.name))}
    return Settings(**sound), None


def save(path: Path, settings: Settings) -> str | None:
    """Write the settings; a sentence when that is not possible."""
    try:
        write_json(path, asdict(settings))
    except (MetaVQAError, OSError) as error:
        return f"the dashboard's settings are not kept: {error}"
    return None


def _is_sound(name: str, value: Any) -> bool:
    if name in ("theme", "pictures"):
        return isinstance(value, str)
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(ids, list) and all(isinstance(run, str) for run in ids)
        for key, ids in value.items()
    )
