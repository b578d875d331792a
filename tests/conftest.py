"""Every test runs with the types and shapes of ``metavqa_cli`` checked, and far from the person's own files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from tests import typechecker

install_import_hook("metavqa_cli", f"{typechecker.__name__}.check")
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)  # busy machines, equal runs
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration, workspace, cache or network of the machine leaks into a test."""
    for name in ("METAVQA_WORKSPACE", "METAVQA_PRESET", "METAVQA_CONFIG", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield
