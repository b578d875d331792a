"""A large file comes whole and unmixed, whatever the server does, and nothing is asked for twice."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timezone
from email.message import Message
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.schema.events import Event, Narrated, ProgressMade
from metavqa_cli.store import fetch, web
from metavqa_cli.store.fetch import Fetched, Patience, Remote
from tests.servers import OLD, Reply, Server, running

BODY = bytes(range(256)) * 3000 + b"the end"  # 768,007 bytes: several chunks
OTHER = BODY[::-1]
SHA = hashlib.sha256(BODY).hexdigest()
NOTE = "file.zip.part.json"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running() as found:
        yield found


class Fetcher:
    """Fetches into a folder, and remembers what was told and how long it was to sleep."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "file.zip"
        self.part = folder / "file.zip.part"
        self.told: list[Event] = []
        self.slept: list[float] = []

    def __call__(
        self, url: str, sha256: str | None = None, *, retries: int = 3, size: int = len(BODY), timeout: float = 20
    ) -> Fetched:
        patience = Patience(retries, timeout, sleep=self.slept.append)
        return fetch.fetch(Remote(url, size, sha256), self.path, self.told.append, patience)

    def left(self) -> set[str]:
        return {file.name for file in self.path.parent.iterdir()}

    def interrupted(self, server: Server, url: str, at: int) -> None:
        """Leave a part of ``at`` bytes, as a fetch that gave up does."""
        server.replies[url.removeprefix(server.url)].insert(0, Reply(cut=at))
        server.replies[url.removeprefix(server.url)].insert(1, Reply(status=503))
        with pytest.raises(MissingError, match=f"{at} of {len(BODY)} bytes are kept"):
            self(url, retries=0)
        assert self.part.read_bytes() == BODY[:at] and not self.path.exists()
        server.asked.clear()
        self.told.clear()
        self.slept.clear()


@pytest.fixture
def get(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path)


def test_a_file_comes_whole_and_leaves_nothing_beside_it(server: Server, get: Fetcher) -> None:
    assert get(server.serve("file.zip", BODY), SHA) == Fetched(SHA, 0)
    assert get.path.read_bytes() == BODY and get.left() == {"file.zip"}
    assert get.told[-1] == ProgressMade("file.zip", len(BODY), len(BODY), "bytes")
    assert server.asked[0].headers["Accept-Encoding"] == "identity"
    assert server.firsts() == [None] and get.slept == []


def test_a_cut_connection_goes_on_where_it_broke(server: Server, get: Fetcher) -> None:
    url = server.serve("file.zip", BODY, Reply(cut=100_000), Reply(cut=300_000), Reply(cut=0))
    assert get(url).sha256 == SHA and get.path.read_bytes() == BODY
    assert server.firsts() == [None, 100_000, 400_000, 400_000]
    assert {asked.condition for asked in server.asked[1:]} == {'"one"'}
    assert server.sent == len(BODY), "no byte was sent twice"


def test_waits_double_while_nothing_comes_and_start_again_when_something_did(server: Server, get: Fetcher) -> None:
    refusals = [Reply(status=500), Reply(status=502), Reply(status=503)]
    get(server.serve("file.zip", BODY, *refusals, Reply(cut=5), *refusals), retries=3)
    assert get.slept == [1, 2, 4, 1, 1, 2, 4] and get.path.read_bytes() == BODY


def test_a_server_that_stays_away_is_given_up_with_the_part_kept(server: Server, get: Fetcher) -> None:
    url = server.serve("file.zip", BODY, Reply(cut=1000), *[Reply(status=503)] * 9)
    with pytest.raises(MissingError, match=rf"{url}: HTTP 503, in 3 attempts in a row; 1000 of {len(BODY)} bytes"):
        get(url, retries=2)
    assert get.part.read_bytes() == BODY[:1000] and len(server.asked) == 4
    server.serve("file.zip", BODY)
    assert get(url) == Fetched(SHA, 1000) and server.firsts()[-1] == 1000


def test_no_server_at_all_is_said_without_a_traceback_of_sockets(get: Fetcher) -> None:
    with running() as server:
        url = server.serve("file.zip", BODY)
    with pytest.raises(MissingError, match="no connection"):
        get(url, retries=1)
    assert len(get.slept) == 1


def test_a_later_fetch_checks_what_is_there_and_asks_only_for_the_rest(server: Server, get: Fetcher) -> None:
    url = server.serve("file.zip", BODY)
    get.interrupted(server, url, 500_000)
    sent = server.sent
    assert get(url, SHA) == Fetched(SHA, 500_000)
    assert server.sent - sent == len(BODY) - 500_000 and get.path.read_bytes() == BODY
    checked = [event for event in get.told if isinstance(event, ProgressMade) and event.phase == "checking file.zip"]
    assert checked[-1].done == checked[-1].total == 500_000


def test_a_server_without_ranges_begins_anew_and_nothing_is_doubled(server: Server, get: Fetcher) -> None:
    url = server.serve("file.zip", BODY, Reply(cut=300_000), Reply(ranges=False))
    assert get(url).sha256 == SHA and get.path.read_bytes() == BODY
    assert any(isinstance(event, Narrated) and "begins anew" in event.message for event in get.told)


def test_a_server_without_ranges_that_always_breaks_is_given_up(server: Server, get: Fetcher) -> None:
    url = server.serve("file.zip", BODY, *[Reply(ranges=False, cut=300_000)] * 9)
    with pytest.raises(MissingError, match="in 3 attempts in a row"):
        get(url, retries=2)
    assert len(server.asked) == 4


@pytest.mark.parametrize("conditions", [True, False])
def test_a_file_that_changed_between_attempts_is_never_mixed(server: Server, get: Fetcher, conditions: bool) -> None:
    url = server.serve("file.zip", OTHER)
    server.replies["file.zip"] = [Reply(cut=300_000), Reply(status=503)]
    with pytest.raises(MissingError):
        get(url, retries=0)
    server.serve("file.zip", BODY, Reply(conditions=conditions), tag='"two"')
    assert get(url).sha256 == SHA and get.path.read_bytes() == BODY
    assert server.asked[2].condition == '"one"' and server.firsts()[2] == 300_000


def test_a_date_is_a_validator_and_a_weak_tag_is_none(server: Server, get: Fetcher) -> None:
    get(server.serve("file.zip", BODY, Reply(cut=9), tag=None))
    assert server.firsts() == [None, 9] and server.asked[1].condition == OLD
    server.asked.clear()
    get.path.unlink()
    get(server.serve("file.zip", BODY, Reply(cut=9), tag='W/"weak"'))
    assert server.firsts() == [None, None], "a weak tag names no bytes"


def test_without_a_validator_only_a_known_sha256_lets_a_part_be_used(server: Server, get: Fetcher) -> None:
    plain = {"tag": None, "date": None}
    assert get(server.serve("file.zip", BODY, Reply(cut=9), **plain)).sha256 == SHA
    assert server.firsts() == [None, None] and get.path.read_bytes() == BODY
    server.asked.clear()
    get.path.unlink()
    assert get(server.serve("file.zip", BODY, Reply(cut=9), **plain), SHA).sha256 == SHA
    assert server.firsts() == [None, 9] and server.asked[1].condition is None


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(claim=len(BODY) - 7), f"has {len(BODY) - 7} bytes, but {len(BODY)} were expected"),
        (Reply(claim=len(BODY) + 7), f"has {len(BODY) + 7} bytes, but {len(BODY)} were expected"),
        (Reply(claim=-1, extra=b"more"), f"sends more than the {len(BODY)} bytes expected"),
        (Reply(headers=(("Content-Encoding", "gzip"),)), "in the encoding gzip"),
        (Reply(status=204), "answers with HTTP 204"),
    ],
)
def test_another_file_than_expected_is_refused_at_once(server: Server, get: Fetcher, reply: Reply, words: str) -> None:
    with pytest.raises(JobError, match=words):
        get(server.serve("file.zip", BODY, reply))
    assert len(server.asked) == 1 and get.slept == [] and get.left() == set()


def test_a_length_that_nobody_says_is_taken_from_what_comes(server: Server, get: Fetcher) -> None:
    assert get(server.serve("file.zip", BODY, Reply(claim=-1, cut=70_000), Reply(claim=-1))).sha256 == SHA
    assert server.firsts() == [None, 70_000]


def test_the_rest_of_another_size_is_refused(server: Server, get: Fetcher) -> None:
    url = server.serve("file.zip", BODY)
    get.interrupted(server, url, 1000)
    server.serve("file.zip", BODY + b"grown")
    with pytest.raises(JobError, match=f"has {len(BODY) + 5} bytes"):
        get(url)
    server.serve("file.zip", BODY, Reply(extra=b"more", claim=-1))
    with pytest.raises(JobError, match="sends more"):
        get(url)
    assert get.left() == set(), "what is too long cannot be gone on with"


def test_another_range_than_asked_for_is_thrown_away(server: Server, get: Fetcher) -> None:
    url = server.serve("file.zip", BODY, Reply(cut=1000), Reply(shift=5))
    assert get(url).sha256 == SHA and server.firsts() == [None, 1000, None]


@pytest.mark.parametrize("header", ["", "bytes */5", "items 1000-2/3", f"bytes 1000-1001/{len(BODY)}, 5-6/7"])
def test_a_range_that_cannot_be_read_is_thrown_away(server: Server, get: Fetcher, header: str) -> None:
    url = server.serve("file.zip", BODY, Reply(cut=1000), Reply(headers=(("Content-Range", header),)))
    assert get(url).sha256 == SHA and server.firsts() == [None, 1000, None]


def test_a_part_beyond_what_the_server_has_is_fetched_anew(server: Server, get: Fetcher) -> None:
    url = server.serve("file.zip", BODY, Reply(cut=1000), Reply(status=416))
    assert get(url).sha256 == SHA and server.firsts() == [None, 1000, None]


def test_a_complete_part_is_finished_without_asking(server: Server, get: Fetcher) -> None:
    url = server.serve("file.zip", BODY)
    get.interrupted(server, url, 1000)
    get.part.write_bytes(BODY)
    assert get(url) == Fetched(SHA, len(BODY)) and server.asked == [] and get.left() == {"file.zip"}


@pytest.mark.parametrize(
    "damage", ["longer", "no note", "torn note", "odd note", "odd tag", "other address", "other size"]
)
def test_a_part_that_cannot_be_trusted_is_fetched_anew(server: Server, get: Fetcher, damage: str) -> None:
    url = server.serve("file.zip", BODY)
    get.interrupted(server, url, 1000)
    note = get.path.with_name(NOTE)
    known = json.loads(note.read_text())
    if damage == "longer":
        get.part.write_bytes(BODY + b"more")
    elif damage == "no note":
        note.unlink()
    else:
        texts = {"torn note": '{"url": "ht', "odd note": "[]"}
        change: dict[str, dict[str, object]] = {
            "odd tag": {"validator": "a\r\nb"},
            "other address": {"url": url + "x"},
            "other size": {"size": 5},
        }
        note.write_text(texts.get(damage) or json.dumps({**known, **change[damage]}))
    assert get(url) == Fetched(SHA, 0) and server.firsts() == [None] and get.path.read_bytes() == BODY


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_that_will_not_pass_is_not_repeated(server: Server, get: Fetcher, status: int) -> None:
    url = server.serve("file.zip", BODY, Reply(status=status))
    with pytest.raises(MissingError, match=rf"{url} is not to be had: the server answers HTTP {status}; .*--base-url"):
        get(url)
    assert len(server.asked) == 1 and get.slept == [] and get.left() == set()


@pytest.mark.parametrize(("status", "slept"), [(429, 7), (503, 7), (500, 1)])
def test_the_wait_that_a_busy_server_asks_for_is_kept(server: Server, get: Fetcher, status: int, slept: int) -> None:
    url = server.serve("file.zip", BODY, Reply(status=status, headers=(("Retry-After", "7"),)))
    assert get(url).sha256 == SHA and get.slept == [slept]


def test_a_wait_of_hours_is_told_instead_of_waited(server: Server, get: Fetcher) -> None:
    url = server.serve("file.zip", BODY, Reply(status=429, headers=(("Retry-After", "7200"),)))
    with pytest.raises(MissingError, match="HTTP 429, asking for 7200 s"):
        get(url)
    assert get.slept == []


def test_a_wrong_sha256_leaves_nothing_and_names_both(server: Server, get: Fetcher) -> None:
    wrong = "0" * 64
    with pytest.raises(JobError, match=f"has the sha256 {SHA}, but {wrong} was expected"):
        get(server.serve("file.zip", BODY), wrong)
    assert get.left() == set()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_with_its_range(server: Server, get: Fetcher, status: int) -> None:
    server.serve("there.zip", BODY, Reply(cut=1000))
    move = Reply(status=status, headers=(("Location", server.url + "there.zip"),))
    assert get(server.serve("file.zip", b"", move, move)).sha256 == SHA
    assert [(asked.path, asked.first) for asked in server.asked] == [
        ("file.zip", None), ("there.zip", None), ("file.zip", 1000), ("there.zip", 1000),
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://localhost/x", "data:,hello", "gopher://localhost"])
def test_a_redirect_to_another_kind_of_place_is_not_followed(server: Server, get: Fetcher, place: str) -> None:
    url = server.serve("file.zip", BODY, Reply(status=302, headers=(("Location", place),)))
    with pytest.raises(MissingError, match=f"{url} (redirects to|is not to be had)"):
        get(url)
    assert get.left() == set()


@pytest.mark.parametrize("place", ["ftp://[a", "http://[::1/x"])
def test_a_redirect_to_a_damaged_address_is_explained(server: Server, get: Fetcher, place: str) -> None:
    url = server.serve("file.zip", BODY, Reply(status=302, headers=(("Location", place),)))
    with pytest.raises(MissingError, match=f"{url} redirects to what is no address"):
        get(url)


def test_a_part_that_nothing_vouches_for_is_not_promised_to_be_kept(server: Server, get: Fetcher) -> None:
    url = server.serve("file.zip", BODY, *[Reply(cut=300_000)] * 9, tag=None, date=None)
    with pytest.raises(MissingError, match=r"in 2 attempts in a row; the same command begins anew, .*--sha256"):
        get(url, retries=1)
    waits = [event.message for event in get.told if isinstance(event, Narrated) and "trying again" in event.message]
    assert waits and all(wait.endswith("from byte 0") for wait in waits)
    server.replies["file.zip"] = [Reply(cut=300_000), Reply(status=503)]
    with pytest.raises(MissingError, match="600000 of 768007 bytes are kept"):
        get(url, SHA, retries=0)


def test_a_redirect_in_a_circle_ends(server: Server, get: Fetcher) -> None:
    move = Reply(status=302, headers=(("Location", server.url + "file.zip"),))
    with pytest.raises(MissingError, match="HTTP 302"):
        get(server.serve("file.zip", b"", *[move] * 30))


def test_a_redirect_from_https_back_to_http_is_refused() -> None:
    handler, old = web._Redirects(), urllib.request.Request("https://a.example/x")
    with pytest.raises(MissingError, match="from https to http, which is unsafe"):
        handler.redirect_request(old, None, 302, "", Message(), "http://a.example/x")
    fine = handler.redirect_request(old, None, 302, "", Message(), "https://b.example/x")
    assert fine is not None and fine.full_url == "https://b.example/x"


@pytest.mark.parametrize(
    "place",
    ["http://127.0.0.1/x", "http://[::1]/x", "http://10.0.0.1:80/x", "http://169.254.169.254/", "http://localhost/x",
     "http://localhost./x", "http://printer.local/x"],
)  # fmt: skip
def test_a_redirect_from_the_net_into_this_machines_own_is_refused(place: str) -> None:
    handler, old = web._Redirects(), urllib.request.Request("http://a.example/x")
    with pytest.raises(MissingError, match=r"http://a\.example/x redirects into the local network"):
        handler.redirect_request(old, None, 302, "", Message(), place)
    inside = urllib.request.Request("http://192.168.0.1/x")
    assert handler.redirect_request(inside, None, 302, "", Message(), place) is not None


def test_a_server_that_drips_is_given_up_with_the_part_kept(server: Server, get: Fetcher) -> None:
    url = server.serve("file.zip", BODY, *[Reply(drip=0.01)] * 9)
    with pytest.raises(
        MissingError, match=r"less than 1000 bytes a second came for 0 s, in 2 attempts in a row; \d+ of"
    ):
        get(url, retries=1, timeout=0.2)
    assert get.left() == {"file.zip.part", "file.zip.part.json"}
    server.replies["file.zip"].clear()
    assert get(url).sha256 == SHA and (server.firsts()[-1] or 0) > 5


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "C:\\evil", "other.zip"])
def test_the_server_does_not_name_the_file(server: Server, get: Fetcher, name: str) -> None:
    told = ("Content-Disposition", f'attachment; filename="{name}"')
    get(server.serve("file.zip", BODY, Reply(headers=(told,))))
    assert get.left() == {"file.zip"}


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,hello"])
def test_only_http_and_https_are_spoken(get: Fetcher, url: str) -> None:
    with pytest.raises(MissingError, match="unknown url type"):
        get(url, retries=0)


def test_an_exception_of_the_teller_stops_the_fetch_and_the_part_goes_on(server: Server, get: Fetcher) -> None:
    class Enough(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, ProgressMade) and event.done > 0:
            raise Enough

    url = server.serve("file.zip", BODY)
    with pytest.raises(Enough):
        fetch.fetch(Remote(url, len(BODY)), get.path, stop)
    there = get.part.stat().st_size
    assert 0 < there < len(BODY)
    assert get(url) == Fetched(SHA, there)


def test_a_folder_that_cannot_be_written_is_explained(server: Server, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    remote = Remote(server.serve("file.zip", BODY), len(BODY))
    with pytest.raises(JobError, match=r"cannot write .*file\.zip\.part"):
        fetch.fetch(remote, tmp_path / "plain" / "file.zip", print)


@given(cuts=st.lists(st.integers(0, 60), max_size=8), body=st.binary(min_size=1, max_size=50))
def test_whatever_the_cuts_the_bytes_are_the_same(cuts: list[int], body: bytes) -> None:
    with running() as server, tempfile.TemporaryDirectory() as folder:
        url = server.serve("x", body, *[Reply(cut=cut) for cut in cuts])
        quiet = Patience(retries=len(cuts), sleep=lambda seconds: None)
        found = fetch.fetch(Remote(url, len(body)), Path(folder) / "x", lambda event: None, quiet)
        assert (Path(folder) / "x").read_bytes() == body
        assert found.sha256 == hashlib.sha256(body).hexdigest() and server.sent == len(body)


KILLED = """
import sys
from pathlib import Path
from metavqa_cli.store import fetch
append = fetch._Part.append
def told(self, chunk, file):
    append(self, chunk, file)
    print(self.length, flush=True)
fetch._Part.append = told
fetch.fetch(fetch.Remote(sys.argv[1], int(sys.argv[2])), Path(sys.argv[3]), lambda event: None)
"""


@pytest.mark.parametrize("at", [100, 400_000])
def test_a_killed_process_leaves_a_part_and_only_the_rest_is_asked_for(server: Server, get: Fetcher, at: int) -> None:
    url = server.serve("file.zip", BODY, Reply(hold=at))
    environment = {**os.environ, "PYTHONPATH": str(Path(fetch.__file__).parents[2])}
    command = [sys.executable, "-c", KILLED, url, str(len(BODY)), str(get.path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert f"{at}\n" in iter(process.stdout.readline, "")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert get.part.stat().st_size == at and not get.path.exists()
    assert get(url) == Fetched(SHA, at)
    assert get.path.read_bytes() == BODY and server.firsts() == [None, at] and server.sent == len(BODY)


def headers(**values: str) -> Message:
    made = Message()
    for name, value in values.items():
        made[name.replace("_", "-")] = value
    return made


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("0", 0), ("", None), ("soon", None), ("-3", None), ("1.5", None),
     ("Thu, 01 Jan 2015 00:01:00 GMT", 60), ("Wed, 31 Dec 2014 00:00:00 GMT", 0)],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    now = datetime(2015, 1, 1, tzinfo=timezone.utc)
    assert web.retry_after(headers(Retry_After=text), lambda: now) == seconds
    assert web.retry_after(headers()) is None


def test_a_date_as_young_as_the_answer_is_no_validator() -> None:
    assert web.validator(headers(Last_Modified=OLD, Date="Thu, 01 Jan 2015 00:00:01 GMT")) == OLD
    assert web.validator(headers(Last_Modified=OLD, Date=OLD)) is None
    assert web.validator(headers(Last_Modified=OLD)) is None
    assert web.validator(headers(Last_Modified="yesterday", Date=OLD)) is None


def test_a_number_of_thousands_of_digits_is_no_length() -> None:
    assert web.content_length(headers(Content_Length="9" * 5000)) is None
    assert web.content_range(headers(Content_Range=f"bytes 0-1/{'9' * 5000}")) is None


@given(st.text(max_size=40))
def test_no_header_makes_the_readers_fail(text: str) -> None:
    made = {name: text for name in ("Content-Range", "Content-Length", "Retry-After", "ETag", "Last-Modified", "Date")}
    odd = Message()
    odd._headers = list(made.items())  # type: ignore[attr-defined]
    assert web.content_length(odd) is None or text.strip().isdecimal()
    assert web.content_range(odd) is None
    assert web.retry_after(odd) is None or web.retry_after(odd) >= 0  # type: ignore[operator]
    assert web.validator(odd) is None or text.strip().startswith('"')
