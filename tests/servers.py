"""A real HTTP server on this machine whose manners a test chooses, request by request."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OLD = "Thu, 01 Jan 2015 00:00:00 GMT"


@dataclass(frozen=True)
class Reply:
    """How one request is answered, where it differs from what a good server does."""

    status: int | None = None  # this refusal, with no body
    headers: tuple[tuple[str, str], ...] = ()  # beside, or in place of, the usual ones
    cut: int | None = None  # close the connection after so many bytes of the body
    hold: int | None = None  # send so many bytes of the body, then nothing until ``release``
    ranges: bool = True  # honour Range
    conditions: bool = True  # honour If-Range
    drip: float | None = None  # send byte by byte, so many seconds apart
    shift: int = 0  # begin so many bytes after what was asked for
    claim: int | None = None  # this Content-Length, whatever is sent; below 0 for none
    extra: bytes = b""  # more than the file


@dataclass(frozen=True)
class Asked:
    """A request as it came: the path, the first byte asked for (None without Range) and If-Range."""

    path: str
    first: int | None
    condition: str | None
    headers: dict[str, str] = field(compare=False, repr=False, default_factory=dict)


@dataclass
class Server:
    """What is served (``files`` by path), how (``replies`` by path, used up one by one) and what was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str | None] = field(default_factory=dict)  # ETag by path; None for none
    modified: dict[str, str | None] = field(default_factory=dict)
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)  # set when a reply holds back
    release: threading.Event = field(default_factory=threading.Event)  # lets it go on
    sent: int = 0  # bytes of bodies

    def serve(self, path: str, body: bytes, *replies: Reply, tag: str | None = '"one"', date: str | None = OLD) -> str:
        """Serve ``body`` under ``path``, first in the manner of ``replies``; returns the address."""
        self.files[path], self.tags[path], self.modified[path] = body, tag, date
        self.replies[path] = list(replies)
        return self.url + path

    def firsts(self) -> list[int | None]:
        """The first byte that each request asked for."""
        return [asked.first for asked in self.asked]


@contextmanager
def running() -> Iterator[Server]:
    """A server on a free port of this machine."""
    server = Server()
    handler = type("Handler", (_Handler,), {"world": server})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    world: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        first = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        asked = Asked(path, int(first[1]) if first else None, condition, dict(self.headers))
        self.world.asked.append(asked)
        waiting = self.world.replies.get(path, [])
        self.answer(asked, waiting.pop(0) if waiting else Reply())
        self.close_connection = True

    def answer(self, asked: Asked, reply: Reply) -> None:
        body = self.world.files.get(asked.path)
        if reply.status is not None or body is None:
            self.head(reply.status or 404, {"Content-Length": "0"}, reply)
            return
        tag, date = self.world.tags[asked.path], self.world.modified[asked.path]
        usual = {"ETag": tag, "Last-Modified": date}
        fresh = not reply.conditions or asked.condition in (None, tag, date)
        status, start = 200, 0
        if asked.first is not None and reply.ranges and fresh:
            if asked.first >= len(body):
                self.head(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"}, reply)
                return
            status, start = 206, asked.first + reply.shift
            usual["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        length = len(body) - start if reply.claim is None else reply.claim
        self.head(status, usual | ({"Content-Length": str(length)} if length >= 0 else {}), reply)
        self.send(body[start:] + reply.extra, reply)

    def head(self, status: int, usual: dict[str, Any], reply: Reply) -> None:
        self.send_response(status)
        for name, value in {**usual, **dict(reply.headers)}.items():
            if value is not None:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def send(self, body: bytes, reply: Reply) -> None:
        stop = reply.cut if reply.hold is None else reply.hold
        try:
            for at in range(len(body) if reply.drip else 0):
                self.wfile.write(body[at : at + 1])
                if self.world.release.wait(reply.drip):
                    return
            self.wfile.write(body[:stop])
            self.world.sent += len(body[:stop])
            if reply.hold is not None:
                self.world.held.set()
                self.world.release.wait(60)
                self.wfile.write(body[stop:])
            elif reply.cut is not None:
                self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # the client had enough
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""
