"""Image files to RGB pixels, trusting nothing: sizes are checked before decoding, and a bad file costs one sentence."""

import warnings
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import cast

from PIL import ExifTags, Image, UnidentifiedImageError

from metavqa_cli.clip.archives import read_member
from metavqa_cli.clip.inspection import (
    MAX_BYTES,
    MAX_PIXELS,
    MAX_SECONDS,
    Timed,
    TooSlow,
    too_many_parts,
    too_many_scans,
)
from metavqa_cli.schema.errors import DeviceError, JobError, MetaVQAError, MissingError
from metavqa_cli.store.images import SUFFIXES, ImageFile

MAX_RATIO = 1000  # of the sides: a model that crops scales the shorter one to its own size, and the longer with it
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")  # no plugin that runs a program (EPS) or opens files
WILDCARDS = frozenset("*?[")
TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns where `open_image` decides. Files are decoded in threads, where warnings.catch_warnings is not safe.
warnings.filterwarnings("ignore", module=r"PIL\.")


def open_image(file: Path | ImageFile) -> Image.Image:
    """The (first frame of the) image in ``file`` as upright RGB; transparent parts become white.

    The one gate: nothing else opens images. Size, format and cost are checked before anything is decoded.
    Raises ``MissingError`` when there is no such file (or archive, or member of it), ``JobError`` when it is not an
    image that can be judged, and ``DeviceError`` when the memory does not suffice.
    """
    path = file.path if isinstance(file, ImageFile) else file
    if isinstance(file, ImageFile) and file.packed:
        return _decode(read_member(file.root, file.name), f"{file.name} in {file.root}")
    return _decode(_read(path), str(path))


def _decode(data: bytes, name: str) -> Image.Image:
    try:
        if too_many_parts(data):
            raise JobError(f"{name} is cut into too many or too large parts; convert it to PNG or JPEG")
        with Image.open(Timed(data), formats=FORMATS) as image:
            _check_size(image, data, name)
            return _upright_rgb(image)
    except MetaVQAError:
        raise
    except UnidentifiedImageError:
        known = "PNG, JPEG, GIF, WebP, BMP, TIFF or PPM"
        raise JobError(f"{name} is not an image that can be read ({known}); convert it to PNG or JPEG") from None
    except Image.DecompressionBombError:
        raise JobError(f"{name} has too many pixels (more than {MAX_PIXELS:,}); make it smaller") from None
    except TooSlow:
        raise JobError(f"{name} takes more than {MAX_SECONDS:g} s to decode; convert it to PNG or JPEG") from None
    except MemoryError:
        raise DeviceError(f"{name} needs more memory than there is; make it smaller") from None
    except Exception as error:  # a decoder raises whatever damaged bytes lead it to: struct.error, KeyError, …
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise JobError(f"{name} is damaged ({reason[:200]}); copy or convert it again") from error


def _check_size(image: Image.Image, data: bytes, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError
    if max(image.size) > MAX_RATIO * min(image.size):
        raise JobError(f"{name} is too narrow for a picture ({width} × {height} pixels); crop it")
    if too_many_scans(data, width, height):
        raise JobError(f"{name} has too many scans for its size; convert it to PNG or JPEG anew")


def _read(path: Path) -> bytes:
    """The bytes of a regular file that is neither empty nor too large."""
    size = _check_file(path)
    try:
        with path.open("rb") as file:
            data = file.read(min(size, MAX_BYTES) + 1)  # of a file that grows meanwhile, one byte more at most
    except PermissionError as error:
        raise MissingError(f"{path} cannot be read: {error.strerror}; check its permissions") from None
    except OSError as error:
        raise JobError(f"{path} cannot be read: {error.strerror or error}; copy it again") from None
    if len(data) > MAX_BYTES:
        raise JobError(f"{path} has more than {MAX_BYTES:,} bytes; make it smaller")
    return data


def _check_file(path: Path) -> int:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MissingError(f"{path} cannot be read: {reason}; check the path") from None
    if not S_ISREG(status.st_mode):
        raise JobError(f"{path} is not a file; name image files, folders or patterns like '*.png'")
    if status.st_size == 0:
        raise JobError(f"{path} is empty (0 bytes); copy it again")
    return status.st_size


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    upright = _upright(image)
    if upright.mode.startswith("I;16") or upright.mode in ("I", "F"):
        upright = _to_eight_bits(upright)
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return upright.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Turned as the EXIF tag says. ImageOps.exif_transpose fails where it cannot write the other tags again."""
    turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits, which Pillow would clip at 255, as 8 bits.

    16-bit files run from 0 to 65535. Wider ones have no fixed white: it is 1 (for fractions), 255 or 65535, whichever
    the values fit first, else the values are stretched from their lowest to their highest.
    """
    wide = image.convert("F")
    black, white = cast("tuple[float, float]", wide.getextrema())
    usual = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0)}.get(image.mode, (65535.0,))
    if black >= 0 and white <= usual[-1]:
        black, white = 0.0, next(limit for limit in usual if white <= limit)
    scale = 255 / max(white - black, 1e-9)
    offset = 0.5 - black * scale  # convert cuts fractions off
    return wide.point(lambda value: value * scale + offset).convert("L")


def expand_images(arguments: list[str]) -> list[Path]:
    """Files as they are, folders as the images inside, patterns as the files that they match; in a stable order.

    Raises ``MissingError`` for a folder without images, a pattern that matches nothing, and an empty argument.
    """
    return list(dict.fromkeys(path for argument in arguments for path in _expand(argument)))


def _expand(argument: str) -> list[Path]:
    if not argument:
        raise MissingError("an image argument is empty; name image files, folders or patterns like '*.png'")
    path = _home(argument)
    if S_ISDIR(_mode(path)):
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not inside:
            raise MissingError(f"there is no image in the folder {path}; name a folder with PNG or JPEG files")
        return inside
    if _mode(path) or WILDCARDS.isdisjoint(argument):
        return [path]
    matches = _matches(path)
    if not matches:
        raise MissingError(f"nothing matches {argument!r}; check the pattern")
    return matches


def _home(argument: str) -> Path:
    """The path with a leading ``~`` expanded, unless there is no such user."""
    try:
        return Path(argument).expanduser()
    except RuntimeError:
        return Path(argument)


def _mode(path: Path) -> int:
    """The kind of thing at ``path``; 0 for nothing, and for names that no file can have."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def _matches(path: Path) -> list[Path]:
    """The files that a pattern matches, below the deepest folder of it that exists (its name may have brackets)."""
    folder = next((parent for parent in path.parents if S_ISDIR(_mode(parent))), Path(path.anchor))
    try:
        return sorted(match for match in folder.glob(str(path.relative_to(folder))) if match.is_file())
    except ValueError:  # not a pattern that pathlib accepts, such as "**.png" before 3.13
        return []
