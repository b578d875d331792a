"""Small JSON documents that notice when they were damaged or changed: the last key is a checksum of all before it.

Every bit of the file counts, white space and the last digit of a number too. Documents of before there were seals have
no ``schema_version`` or version 1, and are read as they are; from ``SEALED_SINCE`` on a document without its seal is
damaged, so that no flipped bit makes a sealed document pass for an old one.
"""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from metavqa_cli.schema.errors import JobError
from metavqa_cli.schema.strict import parse_json
from metavqa_cli.schema.text import json_text
from metavqa_cli.store.atomic import write_bytes

SEALED_SINCE = 2  # the first schema version with a seal
OPENING, CLOSING = b',\n  "sha256": "', b'"\n}\n'
TRAILER = re.compile(re.escape(OPENING) + rb"([0-9a-f]{64})" + re.escape(CLOSING), re.DOTALL)
TRAILER_BYTES = len(OPENING) + 64 + len(CLOSING)


class NewerError(JobError):
    """Written by a later metavqa, in a form that this one does not know. Exit code 1."""


@cache
def this_version() -> str:
    """What wrote an artefact: ``metavqa 0.1.0``."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"metavqa {version('metavqa')}"
    except PackageNotFoundError:
        return "metavqa (from its sources)"


def write_sealed(path: Path, document: dict[str, Any]) -> None:
    """Write ``document`` (whose ``schema_version`` has seals) to ``path``, atomically, with its writer and its seal."""
    if not is_sealed(document):
        raise ValueError(f"a document of schema version {document.get('schema_version')} has no seal")
    ordered = {key: value for key, value in document.items() if key not in ("schema_version", "written_by")}
    ordered |= {"schema_version": document["schema_version"], "written_by": this_version()}
    text = json_text(ordered, indent=2).encode("utf-8")
    write_bytes(path, seal(text.removesuffix(b"\n}")))


def seal(body: bytes) -> bytes:
    """The document that begins with ``body`` and ends with its checksum."""
    return body + OPENING + hashlib.sha256(body).hexdigest().encode() + CLOSING


def read_sealed(path: Path, newest: int, remedy: str) -> dict[str, Any]:
    """The document at ``path``, without its seal. ``OSError`` when there is none, or a part of its path is a file.

    ``JobError`` when it is not what was written (with ``remedy``), or of a schema version after ``newest``.
    """
    raw = read_small(path, remedy)
    document = _parsed(path, raw, remedy)
    version = document.get("schema_version")
    stated = TRAILER.fullmatch(raw[-TRAILER_BYTES:])
    if stated is not None:
        if hashlib.sha256(raw[:-TRAILER_BYTES]).hexdigest().encode() != stated[1]:
            raise JobError(
                f"{path} is damaged or was changed after it was written: its content does not match its checksum; "
                f"{remedy}"
            )
        document.pop("sha256")
    refuse_newer(path, version, newest, document.get("written_by"))
    if stated is None and version not in (None, 0, 1):
        raise JobError(f"{path} is damaged: its checksum is missing; {remedy}")
    return document


def read_small(path: Path, remedy: str) -> bytes:
    """The content of a small file. ``JobError`` for what cannot be read, or is no file: a pipe would be waited for.

    ``FileNotFoundError`` or ``NotADirectoryError`` when there is none.
    """
    if path.exists() and not path.is_file():
        raise JobError(f"{path} is damaged: it is not a file; {remedy}")
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise JobError(f"{path} cannot be read: {error.strerror}; check its permissions, or {remedy}") from None


def file_sum(path: Path) -> str:
    """SHA-256 of a small file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_sealed(document: dict[str, Any]) -> bool:
    """Whether what ``read_sealed`` returned had a seal."""
    version = document.get("schema_version")
    return isinstance(version, int) and version >= SEALED_SINCE


def refuse_newer(path: Path, version: object, newest: int, written_by: object) -> None:
    """``NewerError`` when ``version`` of the artefact at ``path`` is one that only a later metavqa knows."""
    if isinstance(version, int) and version > newest:
        writer = f"by {written_by}" if isinstance(written_by, str) else "by a newer metavqa"
        raise NewerError(
            f"{path} was written {writer} and has schema version {version}; this is {this_version()}, which knows "
            f"version {newest} and older; upgrade metavqa to use it"
        )


def _parsed(path: Path, raw: bytes, remedy: str) -> dict[str, Any]:
    try:
        document = parse_json(raw, constants=True)
    except ValueError as error:
        raise JobError(f"{path} is damaged ({error}); {remedy}") from None
    if not isinstance(document, dict):
        raise JobError(f"{path} is damaged: expected an object, found {type(document).__name__}; {remedy}")
    return document
