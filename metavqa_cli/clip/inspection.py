"""What can be told of an image file's bytes before a decoder sees them, and how long a decoder may work on them.

Pillow decodes in this process, and nothing can stop its C code. So what would make one call of it long or large is
refused beforehand (bytes, pixels, scans of a JPEG, tiles of a TIFF), and between calls, when it asks for more bytes,
it is stopped after ``MAX_SECONDS``.
"""

import struct
import time
from collections.abc import Iterator
from io import BytesIO

MAX_PIXELS = 100_000_000
MAX_BYTES = 500_000_000  # 61 million pixels of 16 bits, uncompressed, are 366 MB
MAX_SECONDS = 30.0  # of this thread's processor time; 100 million pixels take 1 to 4 s
MAX_SCANNED = 2_000_000_000  # pixels over all scans of a JPEG, 5 to 10 s; cameras write at most 20 scans
MAX_PARTS = 500_000  # strips or tiles of a TIFF, each of which takes Pillow a quarter of a kilobyte
SCAN = b"\xff\xda"
TILE_WIDTH, TILE_LENGTH = 322, 323
SHORT, LONG, LONG8 = 3, 4, 16
IN_BYTES = frozenset({1, 2, 6, 7})  # TIFF types whose values stay as bytes, whatever their number


class TooSlow(Exception):
    """The decoder had its time."""


class Timed(BytesIO):
    """A file in memory that stops giving when the thread has worked ``MAX_SECONDS`` since it was made."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._deadline = time.thread_time() + MAX_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._deadline:
            raise TooSlow
        return super().read(size)


def too_many_scans(data: bytes, width: int, height: int) -> bool:
    """Whether a JPEG's scans go over so many pixels that decoding would take minutes: a few bytes are a scan.

    Counts at least the scans that there are, since their data never holds the mark of one.
    """
    return data.startswith(b"\xff\xd8") and data.count(SCAN) * width * height > MAX_SCANNED


def too_many_parts(data: bytes) -> bool:
    """Whether a TIFF lists more than ``MAX_PARTS`` of anything, or has tiles larger than any image."""
    sides = {TILE_WIDTH: 1, TILE_LENGTH: 1}
    for tag, kind, count, value in _tiff_entries(data):
        if count > MAX_PARTS and kind not in IN_BYTES:
            return True
        if tag in sides and count == 1 and kind in (SHORT, LONG, LONG8):
            sides[tag] = max(sides[tag], value)
    return sides[TILE_WIDTH] * sides[TILE_LENGTH] > MAX_PIXELS


def _tiff_entries(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type, count and value field of each entry of a TIFF's first directory, as far as there is one."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    version = struct.unpack_from(f"{order}H", data, 2)[0] if order and len(data) >= 16 else None
    if version not in (42, 43):
        return
    big = version == 43
    start = struct.unpack_from(f"{order}Q", data, 8)[0] if big else struct.unpack_from(f"{order}L", data, 4)[0]
    head, entry, size = (8, f"{order}HHQ", 20) if big else (2, f"{order}HHL", 12)
    if start + head > len(data):
        return
    (entries,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    for at in range(start + head, min(start + head + size * min(entries, MAX_PARTS), len(data) - size + 1), size):
        tag, kind, count = struct.unpack_from(entry, data, at)
        field = data[at + (12 if big else 8) : at + size]
        (value,) = struct.unpack_from(
            f"{order}{'H' if kind == SHORT else 'Q' if kind == LONG8 and big else 'L'}", field
        )
        yield tag, kind, count, value
