"""Two small archives in place of VQA's, and a server on this machine that has them."""

import io
import queue
import threading
import zipfile
from functools import cache

from metavqa_cli.engine import archives
from metavqa_cli.engine.archives import Archive
from tests.servers import running

MEMBER_BYTES = 400_000  # more than is read at once


def _archive(name: str) -> bytes:
    """A zip with two members, the same bytes every time."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for i in range(2):
            file.writestr(zipfile.ZipInfo(f"{name}-{i}.json"), f'["{name}", {i}]'.ljust(MEMBER_BYTES // (i + 1)))
    return packed.getvalue()


BODIES = {archive.name: _archive(archive.name[:-4]) for archive in archives.ARCHIVES if archive.what == "questions"}
CATALOGUE = tuple(
    Archive(archive.name, archive.what, archive.split, len(BODIES[archive.name]))
    for archive in archives.ARCHIVES
    if archive.name in BODIES
)


@cache
def address() -> str:
    """Of the server, which runs until the tests end."""
    found: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_serve, args=(found,), daemon=True).start()
    return found.get()


def _serve(found: "queue.SimpleQueue[str]") -> None:
    """In a thread that Python does not wait for at its end, and so are those that it starts."""
    with running() as server:
        for name, body in BODIES.items():
            server.serve(name, body)
        found.put(server.url)
        threading.Event().wait()
