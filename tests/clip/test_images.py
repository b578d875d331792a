"""Every image file is either right pixels or one clear sentence; names of files are taken as people write them."""

import errno
import io
import os
import random
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metavqa_cli.clip.images import expand_images, open_image
from metavqa_cli.clip.inspection import MAX_PIXELS
from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # the module's own filter, which pytest replaces
ORIENTATION = 0x0112
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that claims to be so large, in 70 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 16)) + chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))


def saved(tmp_path: Path, data: bytes, name: str = "image.png") -> Path:
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


EITHER = "is not an image that can be read|is damaged"  # which, depends on Pillow's version
BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "zero bytes": ("a.png", lambda: b"", r"is empty \(0 bytes\)"),
    "text": ("a.jpg", lambda: b"not a picture\n" * 20, "is not an image that can be read"),
    "html": ("a.png", lambda: b"<html>404</html>", "is not an image that can be read"),
    "postscript": ("a.png", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
    "40,000 x 40,000": ("a.png", lambda: png_header(40_000, 40_000), "has too many pixels .more than 100,000,000"),
    "just too large": ("a.png", lambda: png_header(MAX_PIXELS // 10_000 + 1, 10_000), "has too many pixels"),
    "half a jpeg": ("a.jpg", lambda: encoded(noise(), "JPEG")[:-200], "is damaged .*truncated"),
    "half a png": ("a.png", lambda: encoded(noise(), "PNG")[:900], "is damaged"),
    "a png without pixels": ("a.png", lambda: png_header(500, 500), "is damaged"),
    "a jpeg's first bytes": ("a.jpg", lambda: b"\xff\xd8\xff\xe0", EITHER),
    "wrong pixels": ("a.png", lambda: encoded(noise(), "PNG")[:500] + encoded(noise(), "PNG")[900:], "is damaged"),
    "half a gif": ("a.gif", lambda: encoded(noise().convert("P"), "GIF")[:-300], "is damaged"),
    "half a webp": ("a.webp", lambda: encoded(noise(), "WEBP")[:90], EITHER),
    "half a tiff": ("a.tif", lambda: encoded(noise(), "TIFF", compression="tiff_lzw")[:200], EITHER),
}


@pytest.mark.parametrize(("name", "data", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_one_sentence(tmp_path: Path, name: str, data: Callable[[], bytes], message: str) -> None:
    path = saved(tmp_path, data(), name)
    with pytest.raises(JobError, match=message) as caught:
        open_image(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text and ";" in text  # the thing, and the way out


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no\.png cannot be read: No such file.*check the path"):
        open_image(tmp_path / "no.png")


def test_a_name_too_long_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="cannot be read: File name too long"):
        open_image(tmp_path / ("n" * 300))


def test_a_folder_or_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path, tmp_path / "pipe.png"):
        with pytest.raises(JobError, match="is not a file; name image files"):
            open_image(path)


def test_a_forbidden_file_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = saved(tmp_path, b"x")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(MissingError, match=r"cannot be read: Permission denied; check its permissions"):
        open_image(path)


def test_damage_of_any_kind_is_a_sentence(tmp_path: Path) -> None:
    """Random damage to real files; the decoders raise a dozen kinds of exception, all must arrive as one."""
    rng = random.Random(0)
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x011A] = 6, 1.5
    files = [encoded(noise().convert(mode), kind, **options) for mode, kind, options in (
        ("RGB", "PNG", {}), ("P", "PNG", {}), ("RGB", "JPEG", {"exif": exif}), ("P", "GIF", {}), ("RGB", "WEBP", {}),
        ("RGB", "BMP", {}), ("RGB", "TIFF", {}), ("I;16", "TIFF", {}), ("RGB", "PPM", {}),
    )]  # fmt: skip
    judged = 0
    for number in range(400):
        data = bytearray(files[number % len(files)])
        for _ in range(rng.choice((1, 4, 16))):
            data[rng.randrange(min(len(data), rng.choice((60, 300, 10_000))))] = rng.randrange(256)
        try:
            judged += open_image(saved(tmp_path, bytes(data))).mode == "RGB"
        except MetaVQAError as error:
            assert "\n" not in str(error)
    assert 40 < judged < 360  # some damage is harmless, some is not


def test_tags_that_cannot_be_written_again_do_not_spoil_a_picture(tmp_path: Path) -> None:
    """ImageOps.exif_transpose raises struct.error here: the entry 0x5600 of the tags is damaged."""
    tags = bytes.fromhex(
        "4d4d002a00000008000301120003000000010006000001430005000000010000003201320002000000145600003a"
        "0000000000000003000000023230"
    )
    path = saved(tmp_path, encoded(Image.new("RGB", (6, 4), RED), "JPEG", exif=b"Exif\0\0" + tags))
    assert open_image(path).size == (4, 6)


def test_a_gif_shows_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 4), color) for color in (RED, BLUE)]
    path = saved(tmp_path, encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50), "a.gif")
    image = open_image(path)
    assert (image.mode, image.size, image.getpixel((2, 2))) == ("RGB", (5, 4), RED)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    red, green, blue = np.asarray(open_image(saved(tmp_path, encoded(cyan, "JPEG", quality=95), "a.jpg")))[8, 8]
    assert red < 30 and green > 200 and blue > 200


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("value", [0, 1000, 32768, 65279, 65535])
def test_sixteen_bits_keep_their_brightness(tmp_path: Path, kind: str, value: int) -> None:
    path = saved(tmp_path, encoded(Image.fromarray(np.full((3, 3), value, np.uint16)), kind))
    assert open_image(path).getpixel((1, 1)) == (round(value / 257),) * 3


def test_sixteen_bits_with_a_transparent_grey(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(Image.fromarray(np.array([[0, 514]], np.uint16)), "PNG"))
    assert np.asarray(open_image(path))[0, :, 0].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),  # fractions
        ([0.5, 0.5, 0.5], [128, 128, 128]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),  # eight bits
        ([0.0, 25700.0, 65535.0], [0, 100, 255]),  # sixteen bits
        ([-1.0, 0.0, 1.0], [0, 128, 255]),  # no usual range: stretched
        ([7e5, 7e5, 7e5], [0, 0, 0]),
    ],
)
def test_floating_point_grey_keeps_the_range_it_suggests(
    tmp_path: Path, values: list[float], expected: list[int]
) -> None:
    path = saved(tmp_path, encoded(Image.fromarray(np.array([values], np.float32)), "TIFF"))
    assert np.asarray(open_image(path))[0, :, 0].tolist() == expected


def test_integer_grey_of_32_bits(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(Image.fromarray(np.array([[0, 25700, 65535]], np.int32)), "TIFF"))
    assert np.asarray(open_image(path))[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(tmp_path: Path, mode: str) -> None:
    rgba = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 0))
    image = rgba.quantize(4) if mode == "P" else rgba.convert(mode)
    pixels = np.asarray(open_image(saved(tmp_path, encoded(image, "PNG"))))[0].tolist()
    assert pixels == [[0, 0, 0], [255, 255, 255]]


def test_half_transparent_is_half_white(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 128)), "PNG"))
    assert open_image(path).getpixel((0, 0)) == (255, 127, 127)


def test_a_palette_png_with_one_transparent_color(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)
    path = saved(tmp_path, encoded(image, "PNG", transparency=1))
    assert np.asarray(open_image(path))[0].tolist() == [[10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize(("mode", "value", "expected"), [("L", 77, 77), ("1", 1, 255), ("1", 0, 0)])
def test_grey_is_grey(tmp_path: Path, mode: str, value: int, expected: int) -> None:
    path = saved(tmp_path, encoded(Image.new(mode, (3, 2), value), "PNG"))
    assert open_image(path).getpixel((1, 1)) == (expected,) * 3


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    image = open_image(saved(tmp_path, encoded(Image.new("RGB", (1, 1), RED), "PNG")))
    assert (image.size, image.getpixel((0, 0))) == ((1, 1), RED)


# Where the stored first pixel and the stored last pixel of the first row belong: (left or right, top or bottom).
UPRIGHT = {
    1: ("left top", "right top"), 2: ("right top", "left top"), 3: ("right bottom", "left bottom"),
    4: ("left bottom", "right bottom"), 5: ("left top", "left bottom"), 6: ("right top", "right bottom"),
    7: ("right bottom", "right top"), 8: ("left bottom", "left top"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [*UPRIGHT, 0, 9])
def test_a_camera_s_orientation_is_undone(tmp_path: Path, orientation: int, kind: str) -> None:
    stored = Image.new("RGB", (3, 2), WHITE)
    stored.putpixel((0, 0), RED)
    stored.putpixel((2, 0), BLUE)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = open_image(saved(tmp_path, encoded(stored, kind, exif=exif)))
    assert image.size == ((2, 3) if 5 <= orientation <= 8 else (3, 2))
    for color, place in zip((RED, BLUE), UPRIGHT.get(orientation, UPRIGHT[1]), strict=True):
        x = 0 if "left" in place else image.width - 1
        y = 0 if "top" in place else image.height - 1
        assert image.getpixel((x, y)) == color


def test_threads_leave_the_warning_filters_alone(tmp_path: Path) -> None:
    """warnings.catch_warnings in a decoding thread would restore another thread's filters."""
    path = saved(tmp_path, encoded(noise(), "JPEG"))
    before = list(warnings.filters)
    barrier = threading.Barrier(4)

    def work(_number: int) -> None:
        barrier.wait(30)
        for _ in range(25):
            open_image(path)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert warnings.filters == before


# --- names ---


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with pictures of all sorts of names. Nothing is decoded, so they are empty."""
    names = ["b.png", "a.JPG", "notes.txt", "-x.png", "[1].png", "~odd.png", "in/c.webp", "in/deep/d.tiff"]
    for name in (*names, "empty/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_stay_as_they_are_named_and_in_order(album: Path) -> None:
    names = ["b.png", "missing.png", "-x.png", "[1].png", "~odd.png", "notes.txt", str(album / "b.png"), "b.png"]
    assert expand_images(names) == [Path(name) for name in names[:-1]]


def test_a_folder_is_its_images_sorted_whatever_their_depth(album: Path) -> None:
    assert expand_images(["in"]) == [Path("in/c.webp"), Path("in/deep/d.tiff")]
    everything = expand_images([str(album)])
    assert everything == sorted(everything)
    assert {path.name for path in everything} == {"b.png", "a.JPG", "-x.png", "[1].png", "~odd.png", "c.webp", "d.tiff"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["-x.png", "[1].png", "b.png", "~odd.png"]),
        ("?.png", ["b.png"]),
        ("[ab].*", ["a.JPG", "b.png"]),
        ("in/*", ["in/c.webp"]),  # not the folder in/deep
        ("i*/c.webp", ["in/c.webp"]),
        ("**/*.tiff", ["in/deep/d.tiff"]),
        ("./in/../b.p*", ["in/../b.png"]),
    ],
)
def test_a_pattern_is_the_files_it_matches(album: Path, pattern: str, expected: list[str]) -> None:
    assert expand_images([pattern]) == [Path(name) for name in expected]
    assert expand_images([str(album / pattern)]) == [album / name for name in expected]


def test_a_pattern_in_a_folder_with_brackets(album: Path) -> None:
    (album / "[set]").mkdir()
    (album / "[set]" / "1.png").touch()
    assert expand_images(["[set]/*.png"]) == [Path("[set]/1.png")]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", "an image argument is empty"),
        ("empty", "no image in the folder empty"),
        ("*.bmp", r"nothing matches '\*.bmp'"),
        ("[2].png", "nothing matches"),
        ("no/such/*.png", "nothing matches"),
        ("**.png/x*", "nothing matches"),
    ],
)
def test_nothing_to_judge_is_said(album: Path, argument: str, message: str) -> None:
    with pytest.raises(MissingError, match=message):
        expand_images(["b.png", argument])


@pytest.mark.parametrize("argument", ["~nobody-has-this-name/a.png", "n" * 5000, "nul\0byte.png"])
def test_a_name_that_cannot_exist_is_left_for_open_image(album: Path, argument: str) -> None:
    (path,) = expand_images([argument])
    with pytest.raises(MissingError, match="cannot be read"):
        open_image(path)


def test_a_home_folder_is_found(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(album))
    assert expand_images(["~/b.png", "~/in"]) == [album / "b.png", album / "in/c.webp", album / "in/deep/d.tiff"]


def test_a_tilde_without_a_user_is_a_letter(album: Path) -> None:
    assert expand_images(["~odd.png"]) == [Path("~odd.png")]
