"""Work beside the screen: in daemon threads, so that a disk or a model that does not answer never keeps anyone from
quitting."""

import threading
from collections.abc import Callable
from contextlib import suppress

from textual.message import Message
from textual.message_pump import MessagePump


def beside(work: Callable[[], None], name: str) -> threading.Thread:
    """Run ``work`` in a thread of its own that ends with the program at the latest."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def post(target: MessagePump, message: Message) -> None:
    """Send ``message`` from any thread; to an app that has ended, nothing."""
    with suppress(RuntimeError):  # its event loop is closed
        target.post_message(message)
