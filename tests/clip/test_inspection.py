"""What would make a decoder work for minutes, or take gigabytes, is refused before it begins, or stopped."""

import io
import itertools
import struct
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metavqa_cli.clip import images, inspection
from metavqa_cli.clip.images import open_image
from metavqa_cli.schema.errors import DeviceError, JobError
from metavqa_cli.store.images import ImageFile

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")
SHORT, LONG, LONG8 = 3, 4, 16


def tiff(entries: list[tuple[int, int, int, int]], order: str = "<") -> bytes:
    """A TIFF of these entries (tag, type, count, value) and no pixels."""
    head = struct.pack(f"{order}2sHL", b"II" if order == "<" else b"MM", 42, 8)
    body = b"".join(
        struct.pack(f"{order}HHLH2x" if kind == SHORT and count == 1 else f"{order}HHLL", tag, kind, count, value)
        for tag, kind, count, value in entries
    )
    return head + struct.pack(f"{order}H", len(entries)) + body + b"\0" * 4


def big_tiff(entries: list[tuple[int, int, int, int]]) -> bytes:
    body = b"".join(struct.pack("<HHQQ", *entry) for entry in entries)
    return struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(entries)) + body + b"\0" * 8


WIDTH, HEIGHT = (256, LONG, 1, 8), (257, LONG, 1, 8)


def strips(count: int) -> tuple[int, int, int, int]:
    return (273, LONG, count, 8)


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (tiff([WIDTH, HEIGHT, strips(500_000)]), False),
        (tiff([WIDTH, HEIGHT, strips(500_001)]), True),
        (tiff([WIDTH, HEIGHT, strips(500_001)], ">"), True),
        (big_tiff([WIDTH, HEIGHT, strips(2**40)]), True),
        (tiff([WIDTH, HEIGHT, (34675, 7, 2_000_000, 8)]), False),  # an ICC profile is bytes
        (tiff([WIDTH, HEIGHT, (322, LONG, 1, 20_000), (323, LONG, 1, 20_000)]), True),
        (tiff([WIDTH, HEIGHT, (322, SHORT, 1, 60_000), (323, SHORT, 1, 60_000)], ">"), True),
        (big_tiff([WIDTH, HEIGHT, (322, LONG8, 1, 2**33), (323, LONG8, 1, 16)]), True),
        (tiff([WIDTH, HEIGHT, (322, SHORT, 1, 512), (323, SHORT, 1, 512)]), False),
        (b"II*\0" + b"\xff" * 20, False),  # a directory beyond the end
        (b"II*\0", False),
        (b"", False),
    ],
)
def test_a_tiff_of_too_many_or_too_large_parts(data: bytes, refused: bool) -> None:
    assert inspection.too_many_parts(data) == refused


def test_such_a_tiff_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff([WIDTH, HEIGHT, strips(2_000_000)]) + bytes(8_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(JobError, match=r"a\.tif is cut into too many or too large parts"):
            open_image(path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def scanned(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG with its last scan so many times more."""
    file = io.BytesIO()
    Image.new("L", (side, side), 99).save(file, "JPEG", progressive=True)
    data = file.getvalue().removesuffix(b"\xff\xd9")
    return data + data[data.rindex(inspection.SCAN) :] * scans + b"\xff\xd9"


def test_a_jpeg_of_far_too_many_scans_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(scanned(50))
    assert open_image(path).size == (64, 64)
    path.write_bytes(scanned(inspection.MAX_SCANNED // 64**2))
    with pytest.raises(JobError, match=r"a\.jpg has too many scans for its size; convert it"):
        open_image(path)


def test_a_photograph_as_cameras_write_it_has_few_enough_scans() -> None:
    assert not inspection.too_many_scans(b"\xff\xd8" + inspection.SCAN * 20, 10_000, 10_000)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


SLOW = {
    "a plain map of numbers": b"P3 3000 3000 255\n" + b"1 " * 4_000_000,
    "a GIF of nothing but comments": b"GIF89a\x01\0\x01\0\0\0\0" + b"!\xfe\x01a\0" * 500_000,
    "a PNG of nothing but empty chunks": b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)) + chunk(b"teSt", b"") * 200_000,
}  # fmt: skip


@pytest.mark.parametrize("data", SLOW.values(), ids=SLOW)
def test_a_decoder_that_works_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(data)
    monkeypatch.setattr(inspection, "MAX_SECONDS", 0.05)
    began = time.thread_time()
    with pytest.raises(JobError, match=r"a\.img takes more than .* s to decode; convert it"):
        open_image(path)
    assert time.thread_time() - began < 2


def test_the_time_is_of_one_image_and_of_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(path)
    clock = itertools.count(0, 20)  # each image asks for the time more than once: 20 s for each look would be too much
    monkeypatch.setattr(inspection.time, "thread_time", lambda: next(clock))
    with pytest.raises(JobError, match="takes more than 30 s"):
        open_image(path)
    monkeypatch.setattr(inspection.time, "thread_time", lambda: 1e9)
    for _ in range(3):
        open_image(path)


def test_a_file_of_too_many_bytes_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bmp"
    Image.new("RGB", (32, 32)).save(path)
    monkeypatch.setattr(images, "MAX_BYTES", 3000)
    with pytest.raises(JobError, match=r"a\.bmp has more than 3,000 bytes; make it smaller"):
        open_image(path)
    monkeypatch.setattr(images, "MAX_BYTES", path.stat().st_size)
    assert open_image(path).size == (32, 32)


def test_too_little_memory_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_image: object) -> None:
        raise MemoryError

    path = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(path)
    monkeypatch.setattr(images, "_upright_rgb", exhausted)
    with pytest.raises(DeviceError, match=r"a\.png needs more memory than there is"):
        open_image(path)


OTHERS: dict[str, bytes] = {
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1:9/a.png'/></svg>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "pdf": b"%PDF-1.4\n%%EOF", "wmf": b"\xd7\xcd\xc6\x9a" + bytes(60), "fli": bytes(4) + b"\x12\xaf" + bytes(200),
    "ico": b"\0\0\x01\0\x01\0" + bytes(64), "psd": b"8BPS\0\x01" + bytes(64), "xpm": b"/* XPM */\n" + bytes(64),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "data"), OTHERS.items(), ids=OTHERS)
def test_other_formats_are_refused_and_the_usual_ones_named(tmp_path: Path, kind: str, data: bytes) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(data)
    with pytest.raises(JobError, match=r"is not an image that can be read \(PNG, JPEG, GIF, WebP, BMP, TIFF or PPM\)"):
        open_image(path)


def test_a_packed_image_passes_the_same_gate(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a.jpg", scanned(inspection.MAX_SCANNED // 64**2))
        packed.writestr("b.tif", tiff([WIDTH, HEIGHT, strips(500_001)]))
    for name, message in (("a.jpg", "too many scans"), ("b.tif", "cut into too many")):
        with pytest.raises(JobError, match=message):
            open_image(ImageFile(archive, name, packed=True))


def test_a_large_image_is_quick_enough() -> None:
    """The limits leave room: sixteen million pixels as a progressive JPEG of noise."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4000, 4000), np.uint8)).save(
        file, "JPEG", quality=30, progressive=True
    )
    began = time.thread_time()
    assert images._decode(file.getvalue(), "a.jpg").size == (4000, 4000)
    assert time.thread_time() - began < inspection.MAX_SECONDS / 2


def test_nothing_else_opens_images() -> None:
    """One gate: `Image.open` stands once in the program."""
    package = Path(images.__file__).parents[1]
    found = [str(path.relative_to(package)) for path in sorted(package.rglob("*.py"))
             for _ in range(path.read_text("utf-8").count("Image.open("))]  # fmt: skip
    assert found == ["clip/images.py"]
