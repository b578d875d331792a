"""`metavqa dataset download`: bring VQA v2 and its COCO images to this machine."""

import shlex
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.console import Format
from metavqa_cli.cli.options import FormatOption, JsonOption, chosen, chosen_format, from_home, workspace
from metavqa_cli.schema.errors import InterruptedJob, UsageError
from metavqa_cli.schema.ranges import name_list

if TYPE_CHECKING:
    from metavqa_cli.engine.archives import Archive, Order, Plan

KNOWN = "vqa2"
WHATS, SPLITS = ("questions", "annotations", "images"), ("train", "val")
COLUMNS = ("file", "bytes", "state", "sha256", "path")
PLAN_COLUMNS = ("file", "bytes", "have", "remaining", "url")


def download(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="What to download: vqa2.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder for the files; by default downloads/vqa2 in the workspace.")
    ] = None,
    what: Annotated[
        list[str] | None, typer.Option("--what", help="Of questions, annotations, images: which; by default all.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option("--split", help="Of train, val: which; by default both.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the files, their sizes and the free disk; use no network.")
    ] = False,
    unpack: Annotated[
        bool, typer.Option("--unpack/--no-unpack", help="Also unpack; `dataset build` reads the zips as they are.")
    ] = False,
    sha256: Annotated[
        list[str] | None, typer.Option("--sha256", metavar="FILE=HEX", help="The sha256 that a file must have.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", envvar="METAVQA_VQA_URL", help="Mirror of the questions and annotations."),
    ] = None,
    images_url: Annotated[str | None, typer.Option("--images-url", help="Mirror of the images.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=16, help="Files at a time.")] = 2,
    retries: Annotated[
        int, typer.Option("--retries", min=0, help="Attempts in a row that may bring nothing before a file fails.")
    ] = 8,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Download VQA v2 with its images, 20 GB in all. Goes on where it was stopped, and checks every file."""
    form = chosen_format(format, json)
    if source != KNOWN:
        raise UsageError(f"there is no download {source!r}; the only one is {KNOWN}")
    from metavqa_cli.engine import archives
    from metavqa_cli.engine.archives import IMAGES_URL, VQA_URL, Order

    wanted = _selected(archives.ARCHIVES, _names("--what", what, WHATS), _names("--split", split, SPLITS))
    folder = from_home(to).absolute() if to else workspace().root / "downloads" / KNOWN
    order = Order(
        folder, wanted, _base("--base-url", base_url or VQA_URL), _base("--images-url", images_url or IMAGES_URL),
        pins(sha256 or (), [archive.name for archive in wanted]), unpack, jobs, retries, chosen.offline,
    )  # fmt: skip
    if dry_run:
        _show_plan(archives.make_plan(order), unpack, form)
    else:
        _download(order, form)


def _download(order: "Order", form: Format) -> None:
    from metavqa_cli.cli.session import finish
    from metavqa_cli.engine import download as verb

    try:
        with closing(verb.download(order)) as events:
            files = finish(events)
    except KeyboardInterrupt:
        raise InterruptedJob(f"interrupted; the same command goes on with what is in {order.folder}") from None
    rows = [
        {"file": file.archive.name, "path": str(file.path), "bytes": file.archive.size, "sha256": file.sha256,
         "state": file.state, "unpacked": file.unpacked}
        for file in files
    ]  # fmt: skip
    console.emit(rows, form, COLUMNS)
    console.narrate(f"next: metavqa dataset build --source {KNOWN} --path {shlex.quote(str(order.folder))}")


def _show_plan(plan: "Plan", unpack: bool, form: Format) -> None:
    rows = [
        {"file": file.archive.name, "url": file.url, "path": str(file.path), "bytes": file.archive.size,
         "have": file.have, "remaining": file.remaining, "to_unpack": file.to_unpack, "state": file.state}
        for file in plan.files
    ]  # fmt: skip
    totals: dict[str, Any] = {
        "remaining": plan.remaining, "needed": plan.needed, "free": plan.free, "fits": plan.fits
    }  # fmt: skip
    if form == "json":
        console.emit({"files": rows, **totals}, form)
    else:
        console.emit(rows, form, [*PLAN_COLUMNS, *(["to_unpack"] if unpack else [])])
    console.narrate(
        f"{plan.remaining} bytes to download" + (f", {plan.needed} with unpacking (estimated)" if unpack else "")
        + f"; {plan.free} are free: " + ("it fits" if plan.fits else "it does not fit")
    )  # fmt: skip


def _selected(archives: Sequence["Archive"], what: Sequence[str], splits: Sequence[str]) -> tuple["Archive", ...]:
    return tuple(archive for archive in archives if archive.what in what and archive.split in splits)


def _names(option: str, texts: Sequence[str] | None, known: Sequence[str]) -> Sequence[str]:
    """The names that an option lists; ``all``, or nothing given, is every known one."""
    found = name_list(texts) or ["all"]
    for name in found:
        if name not in (*known, "all"):
            raise UsageError(f"{option} takes {', '.join(known)} or all; found {name!r}")
    return known if "all" in found else found


def _base(option: str, url: str) -> str:
    """``url`` with a slash at its end. ``UsageError`` when it cannot be the beginning of an address."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine or parts.username is not None or parts.query or parts.fragment or not url.isascii() or " " in url:
        raise UsageError(f"{option} takes an address like https://mirror.example/vqa/, found {url!r}")
    return url.rstrip("/") + "/"


def pins(texts: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """File name -> sha256 from ``FILE=HEX`` options, for files among ``names``."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, digest = text.rpartition("=")
        if name not in names:
            raise UsageError(f"--sha256 {text!r}: {name!r} is none of the files to download, {', '.join(names)}")
        if len(digest) != 64 or not set(digest.lower()) <= set("0123456789abcdef"):
            raise UsageError(f"--sha256 {text!r}: {digest!r} is not a sha256, which has 64 hexadecimal digits")
        found[name] = digest.lower()
    return found
