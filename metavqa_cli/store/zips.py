"""Open a zip archive that nobody vouches for: its directory is limited before it is read.

`zipfile` reads the directory in one piece, however large the archive says that it is, and makes an object of half a
kilobyte for each entry. The limits are on what is really read, whatever the records at the archive's end say.
"""

import zipfile
from io import BufferedReader, FileIO
from pathlib import Path

from metavqa_cli.schema.errors import JobError

MAX_MEMBERS = 500_000  # VQA's and COCO's largest archive has 82,784
MAX_DIRECTORY = 128_000_000  # bytes; that archive's directory has 9 million
ENTRY = b"PK\x01\x02"


class _Limited(BufferedReader):
    """A file that gives no directory beyond the limits; once ``done``, anything."""

    done = False

    def read(self, size: int | None = -1, /) -> bytes:
        if not self.done and size is not None and size > MAX_DIRECTORY:
            raise self._too_large(f"{size:,} bytes, more than {MAX_DIRECTORY:,}")
        data = super().read(size)
        if not self.done and data.startswith(ENTRY) and (entries := data.count(ENTRY)) > MAX_MEMBERS:
            raise self._too_large(f"{entries:,} entries, more than {MAX_MEMBERS:,}")
        return data

    def _too_large(self, what: str) -> JobError:
        return JobError(f"{self.name} is not safe to open: the directory of this zip archive has {what}; "
                        "unpack it with another program")  # fmt: skip


class Zip(zipfile.ZipFile):
    """A zip archive to be read.

    ``JobError`` when its directory is beyond ``MAX_DIRECTORY`` or ``MAX_MEMBERS``; else errors as of `zipfile`.
    """

    _limited: _Limited | None = None

    def __init__(self, path: Path) -> None:
        self._limited = _Limited(FileIO(path))
        try:
            super().__init__(self._limited)
        except BaseException:
            self._limited.close()
            raise
        self._limited.done = True

    def close(self) -> None:
        super().close()
        if self._limited is not None:
            self._limited.close()
