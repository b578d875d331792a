"""Images are embedded once: a changed file is embedded anew, a bad one is reported every time."""

import os
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from metavqa_cli.clip.encoder import ClipEncoder
from metavqa_cli.engine import judging
from metavqa_cli.engine.judging import ImageCache, load_files, load_images
from tests import miniature


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = miniature.dataset()
    sources = [folder.image_path(image) for image in folder.tasks.image_ids()[:4]]
    return [Path(shutil.copy(source, tmp_path / f"{n}.png")) for n, source in enumerate(sources)]


class Count:
    """How many images were opened."""

    def __init__(self) -> None:
        self.opened = 0

    def __call__(self) -> None:
        self.opened += 1


def test_what_comes_from_the_cache_is_what_would_be_embedded(files: list[Path]) -> None:
    encoder, cache, count = miniature.encoder(), ImageCache(), Count()
    plain = load_files(encoder, files)
    first = cache.load(encoder, files[:3], count)
    again = cache.load(encoder, list(reversed(files)), count)
    assert count.opened == 4
    assert first.names == [str(file) for file in files[:3]] and again.names == [str(file) for file in reversed(files)]
    torch.testing.assert_close(again.x.flip(0), plain.x)
    assert torch.equal(again.x.flip(0)[:3], first.x)


def test_a_file_that_changed_is_embedded_anew(files: list[Path]) -> None:
    encoder, cache = miniature.encoder(), ImageCache()
    before = cache.load(encoder, files[:1]).x
    shutil.copy(files[1], files[0])
    os.utime(files[0], ns=(1, 1))
    after = cache.load(encoder, files[:1]).x
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, load_files(encoder, files[1:2]).x)


def test_another_encoder_shares_nothing(files: list[Path]) -> None:
    encoder, cache, count = miniature.encoder(), ImageCache(), Count()
    cache.load(encoder, files[:1], count)
    other = ClipEncoder(
        encoder.name, encoder.model, encoder.tokenizer, {**encoder.identity, "weights": "other"},
        encoder.device,
    )  # fmt: skip
    cache.load(other, files[:1], count)
    assert count.opened == 2


def test_a_bad_file_is_reported_every_time_and_a_mended_one_is_judged(files: list[Path]) -> None:
    encoder, cache = miniature.encoder(), ImageCache()
    good = files[1].read_bytes()
    files[1].write_bytes(good[:60])
    for _ in range(2):
        loaded = cache.load(encoder, files[:2])
        assert loaded.names == [str(files[0])] and len(loaded.x) == 1
        assert str(loaded.errors[0]).startswith(str(files[1]))
    files[1].write_bytes(good)
    assert len(cache.load(encoder, files[:2]).names) == 2
    files[1].unlink()
    assert "cannot be read" in str(cache.load(encoder, files[:2]).errors[0])


def test_the_oldest_embeddings_make_room(files: list[Path]) -> None:
    encoder, cache, count = miniature.encoder(), ImageCache(), Count()
    with patch.object(judging, "CACHED", 2):
        assert len(cache.load(encoder, files, count).names) == 4
        cache.load(encoder, files[2:], count)
        assert count.opened == 4
        cache.load(encoder, files[:1], count)
        assert count.opened == 5


def test_embedding_can_be_ended_between_two_images(files: list[Path]) -> None:
    seen: list[int] = []

    def third() -> None:
        seen.append(1)
        if len(seen) == 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        load_files(miniature.encoder(), files, third)
    assert len(seen) == 3


def test_nothing_is_no_images() -> None:
    assert ImageCache().load(miniature.encoder(), []).x.shape == (0, miniature.encoder().embed)
    assert load_images(miniature.encoder(), []).names == []


def test_small_work_is_not_shared_out_and_leaves_the_threads_as_they_were(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    before = torch.get_num_threads()
    monkeypatch.setattr(judging, "BATCH", len(files) - 1)
    torch.set_num_threads(3)
    try:
        for some in (files[1:], files):
            load_files(miniature.encoder(), some, lambda: seen.append(torch.get_num_threads()))
        assert seen == [1] * (len(files) - 1) + [3] * len(files) and torch.get_num_threads() == 3
        with pytest.raises(KeyboardInterrupt):
            load_files(miniature.encoder(), files[1:], interrupt)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def interrupt() -> None:
    raise KeyboardInterrupt
