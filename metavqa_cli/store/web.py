"""One HTTP request at a time: what may be asked, which redirects are followed, and what an answer's headers mean.

``Trouble`` is what may pass when one tries again; everything else is an error for the person at once.
"""

import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from email.message import Message
from email.utils import parsedate_to_datetime
from functools import cache
from http.client import HTTPException, HTTPResponse
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from metavqa_cli.schema.errors import JobError, MissingError

OK, PARTIAL, RANGE_NOT_SATISFIABLE = 200, 206, 416
PASSING = frozenset({408, 425, 429})  # refusals that pass with time, beside all of 5xx
WAIT_ASKED = frozenset({429, 503})
SCHEMES = ("http", "https")
WAY_OUT = "check the address in a browser, or name a mirror with --base-url or --images-url"
CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class Trouble(Exception):
    """What may pass when one tries again; ``wait`` is how many seconds the server asks for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class TooSlow(Trouble):
    """A connection that brings next to nothing, and would for ever."""


class RangeRefused(Trouble):
    """The server has no bytes from where the request wanted to go on (416)."""


def request(url: str, headers: Mapping[str, str], timeout: float) -> HTTPResponse:
    """The answer to a GET: a 200, or a 206 where ``headers`` ask for a range; never compressed.

    ``Trouble`` for what may pass (a 5xx, a 429, no connection), ``MissingError`` when it will not, ``JobError`` for an
    answer that cannot be used.
    """
    asked = urllib.request.Request(
        url, headers={"User-Agent": "metavqa", "Accept-Encoding": "identity", **headers}
    )  # http and https only: see `_opener`
    try:
        response: HTTPResponse = _opener().open(asked, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        raise refusal(url, error.code, error.headers) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise MissingError(f"cannot trust {url}: {error.reason.verify_message}; {WAY_OUT}") from None
        raise Trouble(f"no connection ({_reason(error.reason)})") from None
    except (OSError, HTTPException) as error:
        raise Trouble(f"no answer ({_reason(error)})") from None
    except ValueError as error:  # what urlsplit says of a damaged address
        raise MissingError(f"{url} redirects to what is no address ({_reason(error)}); {WAY_OUT}") from None
    encoding = response.headers.get("Content-Encoding", "identity")
    if response.status not in (OK, PARTIAL) or encoding != "identity":
        response.close()
        raise JobError(f"{url} answers with HTTP {response.status} in the encoding {encoding}, not the file; {WAY_OUT}")
    return response


def read(response: HTTPResponse, most: int) -> bytes:
    """The bytes that are there by now, up to ``most``; none at the end. ``Trouble`` when the connection breaks."""
    try:
        return response.read1(most)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a damaged length of a chunk
        raise Trouble(f"the connection broke ({_reason(error)})") from None


def refusal(url: str, status: int, headers: Message) -> Exception:
    """What an answer that is not the file means: ``Trouble`` if it may pass, else a ``MissingError``."""
    if status == RANGE_NOT_SATISFIABLE:
        return RangeRefused(f"HTTP {status}")
    if status in PASSING or status >= 500:
        return Trouble(f"HTTP {status}", retry_after(headers) if status in WAIT_ASKED else None)
    return MissingError(f"{url} is not to be had: the server answers HTTP {status}; {WAY_OUT}")


def retry_after(headers: Message, now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> float | None:
    """The seconds that ``Retry-After`` asks for, as a number or a date; None when it is absent or unreadable."""
    text = (headers.get("Retry-After") or "").strip()
    if text.isdecimal() and text.isascii():
        return float(text[:9])
    until = _date(text)
    return None if until is None else max(0.0, (until - now()).total_seconds())


def validator(headers: Message) -> str | None:
    """What ``If-Range`` may name: a strong ``ETag``, or a ``Last-Modified`` that is older than the answer.

    A date as young as the answer could belong to two versions of the file (RFC 9110, 8.8.2.2).
    """
    tag = (headers.get("ETag") or "").strip()
    if tag.startswith('"'):
        return tag
    modified, answered = _date(headers.get("Last-Modified")), _date(headers.get("Date"))
    if tag or modified is None or answered is None or answered - modified < timedelta(seconds=1):
        return None
    return str(headers["Last-Modified"]).strip()


def contradicts(known: str | None, headers: Message) -> bool:
    """Whether an answer is of another version than the one that the validator ``known`` names, as far as it says."""
    if known is None:
        return False
    return headers.get("ETag" if known.startswith('"') else "Last-Modified", known).strip() != known


def content_range(headers: Message) -> tuple[int, int | None] | None:
    """First byte and total size (None where the server does not know it) of a 206; None when they are unreadable."""
    found = CONTENT_RANGE.fullmatch((headers.get("Content-Range") or "").strip())
    return found and (int(found[1]), None if found[3] == "*" else int(found[3]))


def content_length(headers: Message) -> int | None:
    """``Content-Length``, or None."""
    text = (headers.get("Content-Length") or "").strip()
    return int(text) if text.isdecimal() and len(text) < 19 else None


def _date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text or "")
    except (TypeError, ValueError, IndexError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _reason(error: object) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _is_inside(url: str) -> bool:
    """Whether an address names this machine or its network, as far as that is written in it: no name is looked up."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    try:
        return not ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to http or https, never from https back to http, nor from the net into this machine's own."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in SCHEMES or (old, new) == ("https", "http"):
            raise MissingError(f"{req.full_url} redirects to {newurl}, from {old} to {new}, which is unsafe; {WAY_OUT}")
        if _is_inside(newurl) and not _is_inside(req.full_url):
            raise MissingError(f"{req.full_url} redirects into the local network, to {newurl}; {WAY_OUT}")
        code = {308: 307}.get(code, code)  # Python 3.10 does not know 308, which is 307 for ever
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


@cache
def _opener() -> urllib.request.OpenerDirector:
    """Speaks http and https, through the proxies of the environment; no ftp, no files, no data in addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(), urllib.request.UnknownHandler(), urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(), urllib.request.HTTPDefaultErrorHandler(), _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener
