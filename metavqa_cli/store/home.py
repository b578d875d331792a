"""The person's own folders, as the platform has them; none for somebody without a home."""

from pathlib import Path
from typing import Literal


def own_folder(of: Literal["data", "config"]) -> Path | None:
    """Where ``metavqa`` keeps a person's data or configuration; None in a container or job whose user has no home."""
    import platformdirs

    find = platformdirs.user_data_path if of == "data" else platformdirs.user_config_path
    try:
        found = find("metavqa", appauthor=False)
    except RuntimeError:  # no HOME, no XDG variable and no entry in the list of users
        return None
    return found if found.is_absolute() else None  # older versions leave the ~ in the path
