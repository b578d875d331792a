"""Many files to embeddings: the same whoever decodes, whatever is broken, and however it ends."""

import gc
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from metavqa_cli.clip import decoding, pipeline
from metavqa_cli.clip.encoder import TINY, ClipEncoder, load_encoder
from metavqa_cli.clip.images import open_image
from metavqa_cli.clip.pipeline import Encoded, batch_bounds, encode_images_of
from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.store.images import ImageFile

SIZES = [(64, 48), (48, 64), (64, 64), (130, 20)]


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return load_encoder(TINY, torch.device("cpu"), resize="crop")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = [folder / f"{i:02d}.jpg" for i in range(23)]
    for i, path in enumerate(paths):
        width, height = SIZES[i % 4]
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).resize((width * 2, height * 2)).save(path)
    return paths


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a few images are decoded by worker processes."""
    monkeypatch.setattr(pipeline, "FEW", 0)


def rows(encoded: list[Encoded]) -> torch.Tensor:
    return torch.cat([each.features for each in encoded])


def test_rows_are_those_of_one_image_after_the_other(encoder: ClipEncoder, files: list[Path]) -> None:
    transform = image_transform_v2(PreprocessCfg(64, "RGB", (0.5,) * 3, (0.5,) * 3, "bicubic", "shortest"), False)
    plain = [transform(open_image(path))[None] for path in files]
    with torch.inference_mode():
        expected = torch.cat([encoder.model.encode_image(x, normalize=True) for x in plain])
    found = list(encode_images_of(encoder, files, batch=7, workers=1))
    torch.testing.assert_close(rows(found), expected, atol=2e-6, rtol=0)
    assert [(each.first, each.count, len(each.features), each.broken) for each in found] == [
        (0, 7, 7, ()), (7, 7, 7, ()), (14, 7, 7, ()), (21, 2, 2, ())
    ]  # fmt: skip


def test_workers_change_no_bit(encoder: ClipEncoder, files: list[Path], processes: None) -> None:
    found = [rows(list(encode_images_of(encoder, files, batch=5, workers=workers))) for workers in (1, 2, 3)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert multiprocessing.active_children() == []


def test_a_zip_gives_the_bits_that_a_folder_gives(
    encoder: ClipEncoder, files: list[Path], tmp_path: Path, processes: None
) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, f"in/{path.name}")
    packed = [ImageFile(tmp_path / "all.zip", f"in/{path.name}", True) for path in files]
    folder = [ImageFile(path.parent, path.name) for path in files]
    found = [rows(list(encode_images_of(encoder, each, batch=8, workers=2))) for each in (files, packed, folder)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_files_are_reported_and_the_others_encoded(
    encoder: ClipEncoder, files: list[Path], tmp_path: Path, processes: None, workers: int
) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    mixed: list[Path | ImageFile] = [*files]
    mixed[3], mixed[4], mixed[20] = (
        tmp_path / "text.jpg",
        tmp_path / "none.jpg",
        ImageFile(tmp_path / "x.zip", "a", True),
    )
    mixed[8:12] = [tmp_path / f"lost-{i}.jpg" for i in range(4)]  # a whole batch
    found = list(encode_images_of(encoder, mixed, batch=4, workers=workers))
    broken = {at: error for each in found for at, error in each.broken}
    assert sorted(broken) == [3, 4, 8, 9, 10, 11, 20]
    assert [type(broken[at]) for at in (3, 4, 20)] == [JobError, MissingError, MissingError]
    assert "text.jpg is not an image" in str(broken[3]) and "x.zip does not exist" in str(broken[20])
    assert found[2].features.shape == (0, encoder.embed)
    good = [i for i in range(len(files)) if i not in broken]
    torch.testing.assert_close(
        rows(found), rows(list(encode_images_of(encoder, [files[i] for i in good], workers=1))), atol=2e-6, rtol=0
    )


def test_no_file_is_no_batch(encoder: ClipEncoder) -> None:
    assert list(encode_images_of(encoder, [])) == []


@given(st.integers(0, 300), st.integers(1, 50), st.integers(0, 60))
def test_batches_cover_all_files_once_and_keep_to_shards(total: int, batch: int, every: int) -> None:
    bounds = batch_bounds(total, batch, every)
    assert [i for first, last in bounds for i in range(first, last)] == list(range(total))
    assert all(0 < last - first <= batch for first, last in bounds)
    if every:
        assert all(first // every == (last - 1) // every for first, last in bounds)
        # a shard that is made alone has the batches that it has among the others
        shard = [(a - every, b - every) for a, b in bounds if a // every == 1]
        assert shard == batch_bounds(min(every, max(0, total - every)), batch, every)


def test_a_shard_made_alone_has_the_same_bits(encoder: ClipEncoder, files: list[Path]) -> None:
    whole = rows(list(encode_images_of(encoder, files, batch=4, every=10, workers=1)))
    alone = rows(list(encode_images_of(encoder, files[10:20], batch=4, every=10, workers=1)))
    assert torch.equal(whole[10:20], alone)


def test_decoding_stays_a_few_batches_ahead(
    encoder: ClipEncoder, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of a million files is not a million images in the memory."""
    submitted: list[int] = []
    original = pipeline.ThreadPoolExecutor.submit

    def submit(self: Any, *arguments: Any) -> Future[Any]:
        submitted.append(len(arguments[1]))
        return original(self, *arguments)

    monkeypatch.setattr(pipeline.ThreadPoolExecutor, "submit", submit)
    encoding = encode_images_of(encoder, files * 20, batch=4, workers=1)
    next(encoding)
    assert 0 < sum(submitted) <= 4 * (pipeline.AHEAD + 2)
    encoding.close()


def test_stopping_early_leaves_no_process(encoder: ClipEncoder, files: list[Path], processes: None) -> None:
    encoding = encode_images_of(encoder, files * 20, batch=4, workers=2)
    next(encoding)
    assert multiprocessing.active_children()
    encoding.close()
    assert multiprocessing.active_children() == []


def test_ctrl_c_leaves_no_process(
    encoder: ClipEncoder, files: list[Path], processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ClipEncoder, "encode_pixels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(encode_images_of(encoder, files * 20, batch=4, workers=2))
    assert multiprocessing.active_children() == []


def test_a_killed_worker_is_one_sentence(encoder: ClipEncoder, files: list[Path], processes: None) -> None:
    encoding = encode_images_of(encoder, files * 50, batch=4, workers=2)
    next(encoding)
    for child in multiprocessing.active_children():
        os.kill(child.pid or 0, signal.SIGKILL)
    with pytest.raises(JobError, match=r"one of 2 processes .* was killed.*--set runtime.workers=1\)$") as caught:
        list(encoding)
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


def cut_short(*_: object) -> None:
    """In a worker: die in the middle of an answer."""
    queue = next(one for one in gc.get_objects() if isinstance(one, SimpleQueue))
    with queue._wlock:  # type: ignore[attr-defined]
        os.write(queue._writer.fileno(), struct.pack("!i", 1000) + b"only a part")  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_worker_killed_in_the_middle_of_an_answer_is_the_same_sentence(
    encoder: ClipEncoder, files: list[Path], processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "decode", cut_short)
    monkeypatch.setattr(pipeline, "GRACE_SECONDS", 0.5)
    with pytest.raises(JobError, match=r"one of 2 processes .* was killed"):
        list(encode_images_of(encoder, files * 50, batch=4, workers=2))
    assert multiprocessing.active_children() == []


def lines_of(process: "subprocess.Popen[str]") -> Iterator[str]:
    assert process.stdout is not None
    yield from process.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_workers_end_when_their_parent_is_killed(files: list[Path], tmp_path: Path) -> None:
    """They share its standard output, which ends only when the last of them is gone."""
    script = tmp_path / "main.py"
    script.write_text(textwrap.dedent(f"""
        import multiprocessing, sys
        from pathlib import Path
        from metavqa_cli.clip import pipeline
        from metavqa_cli.clip.decoding import Shaping

        if __name__ == "__main__":
            files = [Path({str(files[0])!r})] * 400
            with pipeline._decoders(2, len(files)) as pool:
                bounds = pipeline.batch_bounds(len(files), 4)
                next(pipeline._decoded(pool, files, bounds, Shaping(8, 8, "squash")))
                print(len(multiprocessing.active_children()), flush=True)
                sys.stdin.read()
    """))  # fmt: skip
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        output = lines_of(process)
        assert next(output) == "2\n"
        process.kill()
        assert list(output) == []  # waits for the end of every process that holds it


def test_encode_files_raises_what_is_broken(encoder: ClipEncoder, files: list[Path], tmp_path: Path) -> None:
    torch.testing.assert_close(
        torch.cat(list(encoder.encode_files(files, 4))), rows(list(encode_images_of(encoder, files, workers=1))),
        atol=2e-6, rtol=0,
    )  # fmt: skip
    with pytest.raises(MissingError, match=r"none\.jpg cannot be read"):
        list(encoder.encode_files([*files, tmp_path / "none.jpg"], 4))


def test_a_run_is_small_enough_to_hand_over() -> None:
    assert pipeline.RUN * decoding.image_bytes(decoding.Shaping(336, 336, "squash")) < 4_000_000
