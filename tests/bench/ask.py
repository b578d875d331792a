"""How long an answer takes: ``python -m tests.bench.ask [WORKSPACE]`` prints JSON.

*Warm* is one question about eight image files with everything loaded: open and embed the images, encode the question,
sample, decode, judge. *Cold* is the whole `metavqa ask` process. The workspace needs a finished HyperLDM, as
`metavqa quickstart` leaves one; limits: warm 150 ms, cold 8 s, on two cores.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from metavqa_cli.schema.config import Config
from metavqa_cli.store.workspace import Workspace

QUESTION, IMAGES = "What color is the balloon?", 8
LIMITS_MS = {"warm": 150, "cold": 8000}


def image_files(workspace: Workspace) -> list[str]:
    folder = workspace.dataset_dir("scenes") / "images" / "000"
    return [str(path) for path in sorted(folder.glob("*.png"))[:IMAGES]]


def warm(workspace: Workspace, repeats: int) -> dict[str, float]:
    """Milliseconds of one question in a process that has loaded everything."""
    from metavqa_cli.engine.ask import Asker
    from metavqa_cli.engine.diffusion import newest_ldm
    from metavqa_cli.engine.judging import load_images
    from metavqa_cli.engine.request import Request
    from metavqa_cli.engine.session import Session

    session, files = Session(workspace, Config()), image_files(workspace)
    asker = Asker(session, newest_ldm(session))
    found = []
    for i in range(repeats + 1):
        begun = time.perf_counter()
        loaded = load_images(asker.encoder, files)
        asker.ask(Request(QUESTION, seed=i), loaded.names, loaded.x)
        found.append(1000 * (time.perf_counter() - begun))
    return summary(found[1:])


def cold(workspace: Workspace, repeats: int) -> dict[str, float]:
    """Milliseconds of a whole `metavqa ask` process."""
    command = [sys.executable, "-m", "metavqa_cli", "-w", str(workspace.root), "ask", QUESTION, *image_files(workspace)]
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        found.append(1000 * (time.perf_counter() - begun))
    return summary(found)


def summary(milliseconds: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(milliseconds), 1), "fastest": round(min(milliseconds), 1)}


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Workspace.default_root()
    measured = {"warm": warm(Workspace(root), 20), "cold": cold(Workspace(root), 3)}
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    results = [
        {"subject": f"ask, {name}", "value": value, "unit": "ms", "limit": LIMITS_MS[name]}
        for name, value in measured.items()
    ]
    print(json.dumps({"machine": machine, "results": results}, indent=2))


if __name__ == "__main__":
    main()
