"""Write the shells' completion files: ``python -m metavqa_cli.cli.completions [FOLDER]``."""

import os
import subprocess
import sys
from pathlib import Path

from metavqa_cli.store.atomic import write_text

FILES = {"bash": "metavqa.bash", "zsh": "_metavqa", "fish": "metavqa.fish", "powershell": "metavqa.ps1"}


def script(shell: str) -> str:
    """The completion script that typer makes for ``shell``."""
    done = subprocess.run(
        [sys.executable, "-m", "metavqa_cli"],
        env={**os.environ, "_METAVQA_COMPLETE": f"source_{shell}", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    return done.stdout.strip() + "\n"


def write_all(folder: Path) -> None:
    """Write the files of all shells into ``folder``."""
    for shell, name in FILES.items():
        write_text(folder / name, script(shell))


if __name__ == "__main__":
    write_all(Path(sys.argv[1] if len(sys.argv) > 1 else "completions"))
