"""Sound files made unsound, in ways that know their grammar: JSON trees, safetensors, TOML, tables, images, raw bytes.

Every mutation is a function of the bytes and a ``random.Random``, so that a number names an input for ever.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from random import Random
from typing import Any

from metavqa_cli.store.container import DATA, SEAL, ZEROS, _seal_entry

Mutate = Callable[[bytes, Random], bytes]

TOKENS = [
    b"\0", b"\n", b"\r", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b'"', b"'", b",", b":", b"=",
    b"\\",
    b"NaN", b"-Infinity", b"1e999", b"-1", b"true", b"null", b"\\ud800", b"\\u0000", b"\x1b[2J", "\u202e".encode(),
    b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"a" * 20_000, b"-9223372036854775809", b"0.1e-400",
    b"[" * 70 + b"]" * 70,
]  # fmt: skip
ODD: list[Any] = [
    None, True, False, -1, 0, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -(2**63), 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", " ", "\0", "\n", "\ud800", "\udcff", "a" * 5000, "../../etc/passwd", "/dev/zero",
    "\x1b]0;x\x07", "{}", "{} {}", "NaN", [], {}, [[]], [{}], {"": None}, [0] * 2000, "\u2028",
]  # fmt: skip


def raw(data: bytes, rng: Random) -> bytes:
    """Flipped bits, cuts, insertions, repetitions: of any file."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, end = sorted(rng.randrange(len(changed) + 1) for _ in range(2))
        match rng.randrange(8):
            case 0 | 1 if changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 2:
                changed[at:at] = rng.choice(TOKENS)
            case 3:
                del changed[at:]
            case 4:
                del changed[at : min(end, at + 50)]
            case 5:
                changed[at:at] = changed[at : min(end, at + 300)]
            case 6:
                changed[at:at] = rng.randbytes(rng.choice((1, 4, 40)))
            case 7:
                changed[at : at + 1] = rng.choice(TOKENS)
    return bytes(changed)


# --- JSON ---


def tree(data: bytes, rng: Random) -> bytes:
    """A JSON document with some of its values replaced, removed, renamed, wrapped or exchanged."""
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = changed(value, rng)
    return dumped(value, rng)


def dumped(value: Any, rng: Random) -> bytes:
    text = json.dumps(value, ensure_ascii=rng.random() < 0.7).encode("utf-8", "surrogatepass")
    if rng.random() < 0.05 and text.startswith(b'{"'):  # a key twice, which no value of Python has
        first = next(iter(value))
        text = b"{" + json.dumps(first).encode() + b": 0, " + text[1:]
    return text


def changed(value: Any, rng: Random) -> Any:
    """``value`` with one thing about it, or about something inside it, changed."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        keys = [*value] if isinstance(value, dict) else [*range(len(value))]
        key = rng.choice(keys)
        match rng.randrange(10):
            case 0:
                del value[key]
            case 1:
                other = rng.choice(keys)
                value[key], value[other] = value[other], value[key]
            case 2 if isinstance(value, dict):
                value[rng.choice((f"{key}x", "", "\0", "__metadata__", "\udcff"))] = value.pop(key)
            case 2:
                value.append(deepcopy(value[key]))
            case _:
                value[key] = changed(value[key], rng)
        return value
    return _replaced(value, rng)


def _replaced(value: Any, rng: Random) -> Any:
    if type(value) in (int, float) and rng.random() < 0.4:
        return rng.choice(
            (value + 1, -value, value * 1000, str(value), value / 2 if abs(value) < 1e300 else 0.5, value - 1)
        )
    if isinstance(value, str) and rng.random() < 0.4:
        return rng.choice((value + "x", value[:-1], value * 50, value.upper(), value + "\0", [value], "\x1b" + value))
    if rng.random() < 0.1:
        nested = value
        for _ in range(rng.choice((1, 10, 70, 900))):
            nested = [nested] if rng.random() < 0.5 else {"a": nested}
        return nested
    return deepcopy(rng.choice(ODD))


def lines(data: bytes, rng: Random) -> bytes:
    """A file of one JSON document a line, some of them changed."""
    rows = data.splitlines()
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(rows))
        try:
            rows[at] = tree(rows[at], rng) if rng.random() < 0.8 else raw(rows[at], rng)
        except (ValueError, RecursionError):  # changed before, so that it is JSON no more
            rows[at] = raw(rows[at], rng)
    if rng.random() < 0.1:
        rng.shuffle(rows)
    return rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\n\n")).join(rows) + rng.choice((b"", b"\n"))


# --- safetensors ---


def tensors(data: bytes, rng: Random) -> bytes:
    """A sealed safetensors file of which head, header or data are changed and mostly sealed again."""
    length = int.from_bytes(data[:8], "little")
    head, content = json.loads(data[8 : 8 + length]), data[8 + length :]
    what = rng.random()
    if what < 0.4:
        own = json.loads(head["__metadata__"]["metavqa"])
        head["__metadata__"]["metavqa"] = dumped(changed(own, rng), rng).decode("utf-8", "surrogatepass")
    elif what < 0.8:
        head = changed(head, rng)
    else:
        content = raw(content[:4096], rng) + content[4096:]
    sealed = sealed_again(head, content, rng)
    if rng.random() < 0.1:
        sealed = rng.choice((0, 7, 2**31, 2**63, 2**64 - 1)).to_bytes(8, "little") + sealed[8:]
    return sealed


def sealed_again(head: Any, content: bytes, rng: Random) -> bytes:
    """The file of this head and content with right checksums, unless its head has no place for them."""
    metadata = head.get("__metadata__") if isinstance(head, dict) else None
    if isinstance(metadata, dict) and rng.random() < 0.95:
        metadata |= {DATA: f"sha256:{hashlib.sha256(content).hexdigest()}", SEAL: ZEROS}
    text = json.dumps(head, separators=(",", ":")).encode()
    start = len(text).to_bytes(8, "little") + text
    return start.replace(_seal_entry(ZEROS), _seal_entry(hashlib.sha256(start).hexdigest())) + content


# --- TOML ---

VALUES = [
    "true", "-1", "0", "1", "2.5", "nan", "inf", "-inf", "9223372036854775808", "1" * 400, '""', '"a"', "[]", "[[]]",
    "{}",
    "[1000000000]", "[1, 2, 3]", "1979-05-27", "07:32:00", '"""\n"""', "'''x'''", "[" * 80 + "]" * 80, "[" * 5000,
    "0x10",
    '"\\u0000"', '"\\ud800"', '"' + "x" * 5000 + '"', "1e400", '"../.."', "none", "1_000_000", "{a = {b = 1}}",
    "1e-400",
]  # fmt: skip


def toml(data: bytes, rng: Random) -> bytes:
    """A TOML document with values, keys and tables exchanged, repeated and made odd."""
    rows = data.decode().splitlines()
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(rows))
        name, _, _ = rows[at].partition("=")
        match rng.randrange(8):
            case 0:
                rows.insert(at, rows[rng.randrange(len(rows))])
            case 1:
                rows.insert(
                    at, rng.choice(("[a]", "[[a]]", "[ldm]", "[a.b.c]", "=", "#", "a" + ".a" * 2000 + " = 1", "\t"))
                )
            case 2:
                del rows[at]
            case 3:
                rows[at] = raw(rows[at].encode(), rng).decode("utf-8", "replace")
            case _:
                rows[at] = f"{name or 'x '}= {rng.choice(VALUES)}"
        rows = rows or [""]
    text = "\n".join(rows).encode("utf-8", "surrogatepass")
    return raw(text, rng) if rng.random() < 0.1 else text


# --- tables ---

CELLS = [
    "", " ", '"', '""', '"a', 'a"b', '"a\nb"', "\0", "\x1b[2J", "\u202e", "a" * 1001, "a" * 140_000, "../../x.jpg",
    "/dev/zero",
    "a,b", "\ud800", "?", "NaN", "\r", "\ufeff", "..", "a\\b", "=cmd()", "\U0001f600",
]  # fmt: skip


def table(data: bytes, rng: Random) -> bytes:
    """A CSV or TSV table with cells, rows and ends of lines made odd."""
    rows = [row.split(",") for row in data.decode().splitlines()]
    for _ in range(rng.choice((1, 1, 2, 5))):
        row = rng.choice(rows)
        match rng.randrange(6):
            case 0:
                row.append(rng.choice(CELLS))
            case 1 if row:
                del row[rng.randrange(len(row))]
            case 2:
                rng.shuffle(row)
            case 3:
                rows.insert(rng.randrange(len(rows)), rng.choice(rows)[:])
            case _ if row:
                row[rng.randrange(len(row))] = rng.choice(CELLS)
    separator, end = rng.choice((",", ",", ",", ";", "\t")), rng.choice(("\n", "\n", "\r\n", "\r"))
    text = end.join(map(separator.join, rows)).encode("utf-8", "surrogatepass")
    return raw(text, rng) if rng.random() < 0.2 else text


# --- images ---

SIZES = (0, 1, 2, 255, 256, 32_767, 32_768, 65_535, 65_536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)


def image(data: bytes, rng: Random) -> bytes:
    """An image file with numbers near its beginning made odd; a PNG's checksums are right again."""
    if rng.random() < 0.3:
        return raw(data, rng)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        form = rng.choice((">H", "<H", ">I", "<I", "B"))
        width = struct.calcsize(form)
        at = rng.randrange(min(len(changed), rng.choice((40, 200, 5000))))
        fits = rng.choice(SIZES) % 256**width
        changed[at : at + width] = struct.pack(form, fits)[: len(changed) - at]
    return _summed(bytes(changed)) if data.startswith(b"\x89PNG") and rng.random() < 0.8 else bytes(changed)


def _summed(png: bytes) -> bytes:
    """The chunks of a PNG with right checksums, as far as they can be told apart."""
    parts, at = [png[:8]], 8
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        body = png[at + 4 : at + 8 + length]
        if at + 12 + length > len(png):
            break
        parts += [png[at : at + 4], body, struct.pack(">I", zlib.crc32(body))]
        at += 12 + length
    return b"".join([*parts, png[at:]])


def one_of(*mutations: Mutate, weights: Sequence[int]) -> Mutate:
    """Now the one, now the other."""
    return lambda data, rng: rng.choices(mutations, weights)[0](data, rng)
