"""`metavqa dataset download`: every file comes, is checked and recorded; what fails does not take others with it."""

import hashlib
import io
import json
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from metavqa_cli.engine import archives as catalogue
from metavqa_cli.engine import download as verb
from metavqa_cli.engine.archives import Archive, Order, make_plan, read_checksums
from metavqa_cli.engine.download import Downloaded, download
from metavqa_cli.schema.errors import BusyError, JobError, MissingError
from metavqa_cli.schema.events import Event, Narrated, ProgressMade
from metavqa_cli.store import fetch, locks
from tests.servers import Reply, Server, running


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, data in files.items():
            made.writestr(f"{name}.json", data)
    return buffer.getvalue()


BODIES = {"one.zip": zipped(one=b"[1]"), "two.zip": zipped(two=b"[22]" * 5000), "three.zip": zipped(three=b"[333]")}
FILES = (
    Archive("one.zip", "questions", "train", len(BODIES["one.zip"])),
    Archive("two.zip", "annotations", "train", len(BODIES["two.zip"])),
    Archive("three.zip", "images", "train", len(BODIES["three.zip"])),
)
SHA = {name: hashlib.sha256(body).hexdigest() for name, body in BODIES.items()}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running() as found:
        for name, body in BODIES.items():
            found.serve(f"images/{name}" if name == "three.zip" else name, body)
        yield found


class Downloads:
    """Downloads into one folder, and remembers the events."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.events: list[Event] = []

    def order(self, **changes: Any) -> Order:
        places = {"base_url": self.server.url, "images_url": self.server.url + "images/"}
        return Order(self.folder, **{"archives": FILES, "sleep": lambda seconds: None, **places, **changes})

    def __call__(self, **changes: Any) -> dict[str, Downloaded]:
        self.events, running = [], download(self.order(**changes))
        while True:
            try:
                self.events.append(next(running))
            except StopIteration as done:
                return {file.archive.name: file for file in done.value}

    def names(self) -> set[str]:
        return {file.name for file in self.folder.iterdir()} - {verb.LOCK}


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Downloads:
    return Downloads(server, tmp_path / "downloads" / "vqa2")


def test_the_catalogue_is_vqa2_as_shipped() -> None:
    assert len({archive.name for archive in catalogue.ARCHIVES}) == 6
    sizes = {(archive.what, archive.split): archive.size for archive in catalogue.ARCHIVES}
    assert sum(sizes.values()) == 20_198_549_131 and sizes["images", "val"] == 6_645_013_297
    order = Order(Path("x"))
    assert order.url(catalogue.ARCHIVES[0]) == catalogue.VQA_URL + "v2_Questions_Train_mscoco.zip"
    assert order.url(catalogue.ARCHIVES[4]) == "http://images.cocodataset.org/zips/train2014.zip"


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_every_file_comes_and_is_recorded(get: Downloads, jobs: int) -> None:
    files = get(jobs=jobs)
    assert {name: (file.sha256, file.state, file.unpacked) for name, file in files.items()} == {
        name: (SHA[name], "downloaded", None) for name in BODIES
    }
    assert list(files) == list(BODIES), "in the order of the catalogue, whichever came first"
    assert all(file.path.read_bytes() == BODIES[name] for name, file in files.items())
    assert get.names() == {*BODIES, "checksums.json"}
    record = json.loads((get.folder / "checksums.json").read_text())
    assert record == {name: {"bytes": len(BODIES[name]), "sha256": SHA[name]} for name in sorted(BODIES)}
    finished = {event.phase for event in get.events if isinstance(event, ProgressMade) and event.done == event.total}
    assert finished == set(BODIES)


def test_what_is_there_is_checked_and_not_asked_for_again(get: Downloads, server: Server) -> None:
    get()
    server.asked.clear()
    (get.folder / "one.zip.part.json").write_text("{}")  # left by a kill in the last moment
    assert {file.state for file in get().values()} == {"there"}
    assert server.asked == [] and get.names() == {*BODIES, "checksums.json"}
    assert {event.phase for event in get.events if isinstance(event, ProgressMade)} == {f"checking {n}" for n in BODIES}


def test_a_file_that_was_put_there_is_recorded(get: Downloads, server: Server) -> None:
    get.folder.mkdir(parents=True)
    (get.folder / "two.zip").write_bytes(BODIES["two.zip"])
    assert get()["two.zip"].state == "there"
    assert read_checksums(get.folder)["two.zip"].sha256 == SHA["two.zip"]
    assert "two.zip" not in {asked.path for asked in server.asked}


def test_a_file_that_rotted_is_named_with_both_sums_and_left_alone(get: Downloads) -> None:
    get()
    rotten = bytes(reversed(BODIES["one.zip"]))
    (get.folder / "one.zip").write_bytes(rotten)
    with pytest.raises(JobError) as caught:
        get()
    assert str(get.folder / "one.zip") in str(caught.value)
    assert SHA["one.zip"] in str(caught.value) and hashlib.sha256(rotten).hexdigest() in str(caught.value)
    assert (get.folder / "one.zip").read_bytes() == rotten


def test_what_comes_later_must_be_what_was_recorded(get: Downloads, server: Server) -> None:
    get()
    (get.folder / "one.zip").unlink()
    server.serve("one.zip", BODIES["one.zip"][::-1])
    with pytest.raises(JobError, match=f"but {SHA['one.zip']} was expected"):
        get()
    assert "one.zip" not in get.names() and read_checksums(get.folder)["one.zip"].sha256 == SHA["one.zip"]


def test_a_pin_beats_the_record(get: Downloads, server: Server) -> None:
    get()
    (get.folder / "one.zip").unlink()
    newer = BODIES["one.zip"][::-1]
    server.serve("one.zip", newer)
    pinned = hashlib.sha256(newer).hexdigest()
    assert get(pins={"one.zip": pinned})["one.zip"].sha256 == pinned
    assert read_checksums(get.folder)["one.zip"].sha256 == pinned
    with pytest.raises(JobError, match=f"{SHA['one.zip']} was expected"):
        get(pins={"one.zip": SHA["one.zip"]})


def test_a_failure_of_one_file_does_not_lose_the_others(get: Downloads, server: Server) -> None:
    server.serve("one.zip", BODIES["one.zip"], Reply(status=404))
    with pytest.raises(MissingError, match=r"one\.zip is not to be had: the server answers HTTP 404"):
        get(jobs=1)
    assert get.names() == {"two.zip", "three.zip", "checksums.json"} == {*read_checksums(get.folder), "checksums.json"}
    assert {name: file.state for name, file in get().items()} == {
        "one.zip": "downloaded", "two.zip": "there", "three.zip": "there",
    }  # fmt: skip


def test_several_failures_are_told_together_with_the_exit_code_that_they_share(get: Downloads, server: Server) -> None:
    server.serve("one.zip", b"", Reply(status=404))
    server.serve("two.zip", b"", Reply(status=403))
    with pytest.raises(MissingError, match=r"(?s)2 of 3 files were not downloaded:.*(HTTP 40[34].*){2}"):
        get()
    server.serve("one.zip", b"", Reply(status=404))
    server.serve("two.zip", BODIES["two.zip"] + b"more")
    with pytest.raises(JobError, match=r"(?s)2 of 3 files.*HTTP 404.*bytes, but"):
        get()


def test_a_busy_server_is_waited_for(get: Downloads, server: Server) -> None:
    slept: list[float] = []
    server.serve("two.zip", BODIES["two.zip"], Reply(status=429, headers=(("Retry-After", "5"),)), Reply(cut=100))
    assert get(sleep=slept.append)["two.zip"].state == "downloaded"
    assert slept == [5, 1]
    words = [event.message for event in get.events if isinstance(event, Narrated)]
    assert "two.zip: HTTP 429; trying again in 5 s, from byte 0" in words


def test_the_lock_is_told_with_its_folder(get: Downloads, server: Server) -> None:
    with (
        locks.hold(get.folder / verb.LOCK, "x"),
        pytest.raises(BusyError, match=f"the download folder {get.folder} is"),
    ):
        get()
    assert server.asked == []


def test_closing_the_generator_keeps_the_part_and_the_next_goes_on(
    get: Downloads, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve("two.zip", BODIES["two.zip"], Reply(hold=10_000))
    going = download(get.order(archives=FILES[1:2], jobs=1))
    first = next(going)
    assert isinstance(first, ProgressMade) and first.phase == "two.zip"
    assert server.held.wait(20)
    monkeypatch.setattr(verb, "GOODBYE_SECONDS", 0.0)  # the thread waits for a silent server: it is left alone
    going.close()
    assert not locks.is_held(get.folder / verb.LOCK)
    part = get.folder / "two.zip.part"

    def length() -> int:
        return part.stat().st_size if part.exists() else 0  # not there if nothing had arrived yet

    had = length()
    server.release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("download-"):
            thread.join(20)
    assert length() == had <= 10_000, "what came after the end was not written"
    assert "two.zip" not in get.names()
    found = get(archives=FILES[1:2])["two.zip"]
    assert found.sha256 == SHA["two.zip"] and found.state == ("resumed" if had else "downloaded")
    assert server.firsts() == [None, had or None]


@pytest.mark.parametrize("change", ["begin", "append", "discard", "finish"])
def test_a_change_that_was_about_to_be_made_when_the_download_ended_is_not_made(
    get: Downloads, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    get.folder.mkdir(parents=True)
    (get.folder / "two.zip.part").write_bytes(b"as the next download has it")
    reached, released, real = threading.Event(), threading.Event(), getattr(fetch._Part, change)

    def late(part: Any, *given: Any) -> Any:
        reached.set()
        assert released.wait(20)
        return real(part, *given)

    monkeypatch.setattr(fetch._Part, change, late)
    monkeypatch.setattr(verb, "GOODBYE_SECONDS", 0.0)
    pins = {"two.zip": "0" * 64} if change == "discard" else {}
    crew = verb._Crew(get.order(archives=FILES[1:2], pins=pins))
    crew.start()
    assert reached.wait(20)
    crew.stop()
    before = {name: (get.folder / name).read_bytes() for name in get.names()}
    assert "two.zip.part" in before
    released.set()
    for thread in crew.threads:
        thread.join(20)
    assert {name: (get.folder / name).read_bytes() for name in get.names()} == before


def test_a_full_disk_is_known_before_anything_is_asked_for(
    get: Downloads, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = sum(map(len, BODIES.values()))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=total - 1))
    with pytest.raises(JobError, match=rf"has {total - 1} bytes free, but {total} are needed"):
        get()
    assert server.asked == [] and not make_plan(get.order()).fits
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=total))
    assert make_plan(get.order()).fits and not make_plan(get.order(unpack=True)).fits
    assert len(get()) == 3


def test_the_plan_counts_parts_files_and_what_is_still_packed(get: Downloads, server: Server) -> None:
    server.serve("two.zip", BODIES["two.zip"], Reply(cut=700), *[Reply(status=503)] * 3)
    with pytest.raises(MissingError):
        get(retries=1)
    plan = make_plan(get.order(unpack=True))
    assert [(file.archive.name, file.state, file.have) for file in plan.files] == [
        ("one.zip", "there", len(BODIES["one.zip"])), ("two.zip", "part", 700),
        ("three.zip", "there", len(BODIES["three.zip"])),
    ]  # fmt: skip
    assert plan.remaining == len(BODIES["two.zip"]) - 700
    assert [file.to_unpack for file in plan.files] == [3, 20 * len(BODIES["two.zip"]), 5]
    assert make_plan(get.order()).needed == plan.remaining
    assert get()["two.zip"].state == "resumed"


def test_a_plan_touches_nothing(get: Downloads, server: Server) -> None:
    assert make_plan(get.order()).remaining == sum(map(len, BODIES.values()))
    assert not get.folder.exists() and server.asked == []


def test_a_pipe_under_the_name_is_not_waited_for(get: Downloads, server: Server) -> None:
    get.folder.mkdir(parents=True)
    os.mkfifo(get.folder / "one.zip")
    with pytest.raises(JobError, match=r"one\.zip is a pipe or a device, but"):
        get()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_something_else_under_the_name_is_never_replaced(get: Downloads, server: Server, kind: str) -> None:
    get.folder.mkdir(parents=True)
    mine = get.folder / "one.zip"
    mine.mkdir() if kind == "folder" else mine.write_bytes(b"mine")
    with pytest.raises(JobError, match=rf"{mine} is (4 bytes|a folder), but {len(BODIES['one.zip'])} bytes"):
        get()
    assert mine.is_dir() if kind == "folder" else mine.read_bytes() == b"mine"
    assert server.asked == []


@pytest.mark.parametrize("text", ["{", "[]", '{"one.zip": 5}', '{"one.zip": {"bytes": "x", "sha256": "y"}}', "\xff"])
def test_a_damaged_record_is_named_with_the_way_out(get: Downloads, text: str) -> None:
    get.folder.mkdir(parents=True)
    (get.folder / "checksums.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(JobError, match=r"checksums\.json is damaged .*remove it"):
        get()


def test_offline_needs_everything_there(get: Downloads, server: Server) -> None:
    with pytest.raises(
        MissingError, match=r"--offline forbids .*dataset download vqa2.*wget http://[^ ]*one\.zip http"
    ):
        get(offline=True)
    assert server.asked == []
    get()
    assert {file.state for file in get(offline=True).values()} == {"there"}


def test_unpacking_follows_each_download_and_is_not_repeated(get: Downloads) -> None:
    assert [file.unpacked for file in get(unpack=True).values()] == [1, 1, 1]
    assert (get.folder / "two.json").read_bytes() == b"[22]" * 5000
    before = (get.folder / "two.json").stat().st_ino
    assert [file.unpacked for file in get(unpack=True).values()] == [1, 1, 1]
    assert (get.folder / "two.json").stat().st_ino == before


def test_an_unsafe_archive_stays_packed_and_recorded(get: Downloads, server: Server) -> None:
    evil = io.BytesIO()
    with zipfile.ZipFile(evil, "w") as made:
        made.writestr("../evil.json", b"x")
    server.serve("one.zip", evil.getvalue())
    swapped = (Archive("one.zip", "questions", "train", len(evil.getvalue())), *FILES[1:])
    with pytest.raises(JobError, match=r"one\.zip is not safe to unpack: .*leads out"):
        get(archives=swapped, unpack=True)
    assert get.names() == {*BODIES, "checksums.json", "two.json", "three.json"}
    assert not (get.folder.parent / "evil.json").exists() and "one.zip" in read_checksums(get.folder)


def test_unpacking_asks_the_disk_again_when_it_knows_the_size(get: Downloads, monkeypatch: pytest.MonkeyPatch) -> None:
    get()
    free = iter([10**9, 4])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=next(free)))
    with pytest.raises(JobError, match=r"three\.zip: 5 bytes are needed, 4 are free"):
        get(unpack=True, archives=FILES[2:])


def test_a_bug_in_a_thread_is_not_swallowed(get: Downloads, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(fetch, "fetch", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        get()
