"""User-facing errors: one class for each documented exit code.

An error text names the thing, the value found, what was expected and the way out, in one sentence or two.
The command line prints it on stderr without a traceback (``--debug`` shows one) and exits with ``exit_code``.
What it quotes of a file cannot steer a terminal, wherever the text ends up: control characters are shown as escapes.
"""

from metavqa_cli.schema.text import neutral


class MetaVQAError(Exception):
    """Base of every error that a user can cause or mend. Exit code 1: the job failed."""

    exit_code = 1
    said = False  # by another process of the same job, so that this one may keep silent

    def __init__(self, text: str = "") -> None:
        super().__init__(neutral(text))


class JobError(MetaVQAError):
    """The job itself failed: a bad image, a diverged loss, a disk that is full. Exit code 1."""


class UsageError(MetaVQAError):
    """The command line or the configuration is wrong. Exit code 2."""

    exit_code = 2


class MissingError(MetaVQAError):
    """Something external is missing: data, weights, a run, the network. Exit code 3; the text says how to get it."""

    exit_code = 3


class RemovedError(MissingError):
    """What was to be used was there a moment ago: another process has removed it since. Exit code 3."""


class DeviceError(MetaVQAError):
    """Out of memory, or no such device. Exit code 4."""

    exit_code = 4


class BusyError(MetaVQAError):
    """Locked by another process, or already there. Exit code 5."""

    exit_code = 5


class InterruptedJob(MetaVQAError):
    """Ctrl-C or SIGTERM after a checkpoint was written. Exit code 130; the text says how to resume."""

    exit_code = 130
