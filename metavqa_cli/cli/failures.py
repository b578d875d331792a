"""Any exception as one sentence and a documented exit code."""

import errno
from pathlib import Path

import typer

from metavqa_cli.schema.errors import DeviceError, JobError, MetaVQAError, MissingError, UsageError

INTERRUPTED = 130
NO_ROOM = ("failed to map segment", "annot allocate memory")  # what the linker says of a library that does not fit
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def explain(error: BaseException) -> tuple[str, int]:
    """What to tell the person, and the exit code."""
    if isinstance(error, MetaVQAError):
        return str(error), error.exit_code
    if isinstance(error, (KeyboardInterrupt, typer.Abort, EOFError)):
        return "interrupted", INTERRUPTED
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's
        way_out = "make the batch smaller (--set), or choose another --device"
        return f"out of memory ({_first_line(error)}); {way_out}", DeviceError.exit_code
    if hasattr(error, "format_message"):  # typer's own errors, in every version of typer
        return _usage(error), UsageError.exit_code
    if isinstance(error, ImportError) and any(words in str(error) for words in NO_ROOM):
        way_out = "raise the limit of this process (ulimit -v), or free some memory"
        return f"out of memory ({_first_line(error)}); {way_out}", DeviceError.exit_code
    if isinstance(error, FileNotFoundError) and error.filename is None and _is_nowhere():
        return "the folder that this shell is in was removed; `cd` to one that exists", MissingError.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename!s}: {error.strerror}", JobError.exit_code
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return f"cannot write the output: {error.strerror}", JobError.exit_code
    way_out = "this is a bug: run the command again with --debug and report the traceback"
    return f"unexpected {type(error).__name__} ({_first_line(error)}); {way_out}", JobError.exit_code


def _is_nowhere() -> bool:
    """Whether the current folder is gone."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _usage(error: BaseException) -> str:
    """Typer's message as one sentence, with the command whose help explains it."""
    message = str(error.format_message()).replace("Value error, ", "")  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "metavqa"
    if type(error).__name__ == "NoArgsIsHelpError":
        return f"a command is needed; `{command} --help` lists them"
    sentence = f"{message[:1].lower()}{message[1:].rstrip('.').replace('. ', '; ').replace('Did you', 'did you')}"
    return f"{sentence}; `{command} --help` shows the usage"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
