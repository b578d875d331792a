"""JSON and TOML from files that nobody vouches for: one reader each, which refuses what no file of this program holds.

``json.loads`` alone takes NaN, keys that come twice, half characters, numbers that no tensor can hold, and nesting that
ends in a RecursionError; and three bytes of it may become eighty of memory.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

DEEPEST = 64  # lists and objects within one another; this program writes five
MOST_PARTS = 1_000_000  # lists and objects in one value: 80 MB of memory
MOST_BYTES = 64 * 2**20  # of one value
MOST_TOML = 2**20  # of a TOML document; a whole configuration has 4,000
LARGEST = 2**63  # what an int64 cannot hold
HALF = re.compile(r"\\u[dD][89a-fA-F]")  # may be half a character, or one of a pair

KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def parse_json(text: bytes | str, *, constants: bool = False) -> Any:
    """The one JSON value in ``text`` (bytes are UTF-8). ``ValueError``, in one line, for everything that is not sound.

    That is: what is not JSON; NaN and Infinity (unless ``constants``), and numbers as large as that; whole numbers
    beyond 64 bits; a key that comes twice in an object; half of a character, but for those that stand for the bytes of
    a file's name; nesting beyond ``DEEPEST``; more than ``MOST_BYTES`` or ``MOST_PARTS``.
    """
    value = _decoded(text, LENIENT if constants else STRICT)
    check_depth(value)
    return value


def parse_line(text: bytes | str) -> Any:
    """As ``parse_json``, twice as fast, for one of many lines whose numbers and shape the caller checks."""
    return _decoded(text, PLAIN)


def parse_toml(text: bytes | str) -> dict[str, Any]:
    """The tables of a TOML document (bytes are UTF-8). ``ValueError``, in one line, for everything that is not one, for
    nesting and dotted keys beyond ``DEEPEST``, and for more than ``MOST_TOML`` bytes."""
    import tomli

    if len(text) > MOST_TOML:
        raise ValueError(f"{len(text):,} bytes are more than {MOST_TOML:,}")
    try:
        values = tomli.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_depth(values)
    return values


def _decoded(text: bytes | str, decoder: json.JSONDecoder) -> Any:
    if len(text) > MOST_BYTES:
        raise ValueError(f"{len(text):,} bytes are more than {MOST_BYTES:,}")
    if isinstance(text, bytes):
        text = text.decode("utf-8")  # UnicodeDecodeError is a ValueError
    if text.count("[") + text.count("{") > MOST_PARTS:
        raise ValueError(f"more than {MOST_PARTS:,} lists and objects")
    try:
        value = decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if HALF.search(text):
        _check_characters(value)
    return value


def check_depth(value: Any) -> None:
    """``ValueError`` for lists and objects more than ``DEEPEST`` within one another."""
    level = [value]
    for _ in range(DEEPEST):
        level = [part for each in level for part in _parts(each) if isinstance(part, (dict, list))]
        if not level:
            return
    raise ValueError(f"nested more than {DEEPEST} deep")


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _check_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("it holds half of a character") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} stands where a number should")


def _whole(digits: str) -> int:
    value = int(digits) if len(digits) < 24 else LARGEST
    if abs(value) >= LARGEST:
        raise ValueError(f"a whole number of {len(digits)} digits is too large")
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"a number of {len(digits)} characters is too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:60]!a} comes twice")
    return found


STRICT = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_int=_whole, parse_float=_finite, object_pairs_hook=_unique
)
LENIENT = json.JSONDecoder(parse_int=_whole, object_pairs_hook=_unique)
PLAIN = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique)


def check_types(record: Any, types: Mapping[str, type | tuple[type, ...]]) -> None:
    """``ValueError`` unless ``record`` is an object with all keys of ``types``, each a value of its types."""
    if not isinstance(record, dict):
        raise ValueError(f"{kind(record)} stands where an object should")
    for key, wanted in types.items():
        if key not in record:
            raise ValueError(f"it has no {key!r}")
        if not isinstance(record[key], wanted) or (type(record[key]) is bool and wanted is not bool):
            raise ValueError(f"{key!r} is {kind(record[key])}")


def kind(value: Any) -> str:
    """What JSON calls a value."""
    return KINDS.get(type(value), "a number")
