"""`metavqa env` and `metavqa locate`: what this installation is made of, and where its files are. Without torch."""

import os
import platform
import shutil
import sys
from pathlib import Path

from metavqa_cli.cli import console
from metavqa_cli.cli.options import FormatOption, JsonOption, chosen, chosen_format, workspace
from metavqa_cli.engine.configuration import PRESETS_DIR, PROJECT_FILE, user_file

PACKAGES = (
    "metavqa", "torch", "torchvision", "open_clip_torch", "numpy", "scipy", "pillow", "safetensors", "typer", "textual",
    "rich", "pydantic",
)  # fmt: skip
VARIABLES = ("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS")


def env(format: FormatOption = "auto", json: JsonOption = False) -> None:
    """Show versions, devices and folders, for a bug report."""
    record = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "cpus": usable_cpus(),
        "memory_gib": memory_gib(),
        "gpus": nvidia_devices(),
        **{name: installed(name) for name in PACKAGES},
        "cuda_runtime": next(filter(None, map(installed, ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"))), None),
        **{name: os.environ.get(name) for name in VARIABLES},
        "workspace": str(workspace().root),
        "free_gib": free_gib(workspace().root),
        "offline": chosen.offline,
    }
    console.emit(record, chosen_format(format, json))


def locate(format: FormatOption = "auto", json: JsonOption = False) -> None:
    """Show where everything is, whether it exists or not."""
    here = workspace()
    places = {
        "workspace": here.root,
        "datasets": here.datasets_dir,
        "runs": here.runs_dir,
        "project configuration": PROJECT_FILE.absolute(),
        "user configuration": user_file(),
        "presets": PRESETS_DIR,
        "built-in encoder": PRESETS_DIR.with_name("assets"),
        "model cache": hub_cache(),
    }
    rows = [
        {"what": what, "path": path and str(path), "exists": path is not None and path.exists()}
        for what, path in places.items()
    ]
    console.emit(rows, chosen_format(format, json))


def installed(package: str) -> str | None:
    """The installed version of a package, read off its metadata, or None."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def usable_cpus() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float | None:
    """The machine's memory, or None where the system does not say."""
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def nvidia_devices() -> list[str]:
    """Names of the NVIDIA GPUs that the driver of a Linux machine reports."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for file in files for line in file.read_text("utf-8", "replace").splitlines()]
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]


def free_gib(folder: Path) -> float:
    """Free space on the disk of ``folder``, or of its nearest parent that exists."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return round(shutil.disk_usage(existing).free / 2**30, 1)


def hub_cache() -> Path | None:
    """Where the Hugging Face library keeps downloaded models; None for somebody without a home."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    try:
        return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
    except RuntimeError:
        return None
