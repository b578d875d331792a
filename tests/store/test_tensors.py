"""A tensor file comes back exactly, or not at all."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError
from metavqa_cli.store import tensors as store

HEADER = {"kind": "hvae", "question": "Où est-il?", "nested": {"a": [1, 2.5, None]}}


def example() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 4, generator=generator)
    return {
        "matrix": matrix, "transposed": matrix.T, "half": matrix.to(torch.bfloat16), "step": torch.tensor(7),
        "empty": torch.zeros(0, 5), "mask": torch.tensor([True, False]), "bytes": torch.arange(9, dtype=torch.uint8),
    }  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    store.save_tensors(path, example(), HEADER)
    return path


def test_tensors_and_header_come_back_exactly(path: Path) -> None:
    loaded, header = store.load_tensors(path)
    assert header == HEADER == store.read_header(path)
    assert loaded.keys() == example().keys()
    for name, tensor in example().items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_the_header_is_read_without_torch(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from metavqa_cli.store.tensors import read_header; "
        f"print(read_header(Path({str(path)!r}))['kind'], 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "hvae False False\n"


def test_arrays_are_the_same_values_with_the_same_checks(tmp_path: Path) -> None:
    path, kept = tmp_path / "model.safetensors", {name: value for name, value in example().items() if name != "half"}
    store.save_tensors(path, {**kept, "answers": torch.arange(6, dtype=torch.int16).reshape(2, 3)}, HEADER)
    arrays, header = store.load_arrays(path)
    assert header == HEADER and arrays.keys() == {*kept, "answers"}
    for name, tensor in store.load_tensors(path)[0].items():
        assert torch.equal(torch.from_numpy(arrays[name].copy()), tensor)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(JobError, match="checksum"):
        store.load_arrays(path)
    store.save_tensors(path, {"bad": torch.tensor([0.0, float("nan")])}, {})
    with pytest.raises(JobError, match="NaN or infinite values in 'bad'"):
        store.load_arrays(path)


def test_arrays_of_a_type_that_numpy_lacks_are_refused(path: Path) -> None:
    with pytest.raises(JobError, match=r"model\.safetensors is damaged .*BF16"):
        store.load_arrays(path)


def test_arrays_are_read_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    store.save_tensors(path, {"a": torch.ones(2)}, HEADER)
    code = (
        "import sys; from pathlib import Path; from metavqa_cli.store.tensors import load_arrays; "
        f"print(load_arrays(Path({str(path)!r}))[0]['a'].tolist(), 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[1.0, 1.0] False\n"


@given(share=st.floats(min_value=0, max_value=1, exclude_max=True))
def test_a_truncated_file_is_refused_with_both_sizes(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    store.save_tensors(path, example(), HEADER)
    whole = path.read_bytes()
    found = int(share * len(whole))
    path.write_bytes(whole[:found])
    with pytest.raises(JobError, match=rf"(?=.*{found})(?=.*train it again)"):
        store.load_tensors(path, remedy="train it again with `metavqa train hvae --force`")


def test_a_truncated_file_names_what_was_expected(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(JobError, match=f"truncated: expected {len(whole)} bytes, found {len(whole) - 10}"):
        store.read_header(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(JobError, match=f"damaged: expected {len(whole)} bytes, found {len(whole) + 4}"):
        store.read_header(path)


def test_one_flipped_bit_is_noticed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(JobError, match="checksum"):
        store.load_tensors(path)


@given(data=st.binary(max_size=200))
def test_garbage_is_refused_without_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("garbage") / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(JobError, match=r"model\.safetensors"):
        store.load_tensors(path)


@pytest.mark.parametrize(
    "header",
    [b"{}", b"[]", b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": [1]}}', b"{" * 5000, b'{"__metadata__": 3}',
     b'{"__metadata__": {"metavqa": "{"}}', b'{"__metadata__": {"metavqa": "[1]"}}',
     b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}'],
)  # fmt: skip
def test_a_well_sized_but_foreign_header_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(JobError, match=r"not one of metavqa's|header cannot be read"):
        store.read_header(path)


def test_a_header_that_lies_about_its_tensors_is_refused(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"shape":[3,4]', b'"shape":[9,9]'))
    with pytest.raises(JobError, match=r"model\.safetensors is damaged"):
        store.load_tensors(path)


def test_a_header_length_beyond_reason_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(JobError, match="not a safetensors file"):
        store.read_header(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    path = tmp_path / "model.safetensors"
    store.save_tensors(path, {"good": torch.ones(2), "bad": torch.tensor([0.0, value])}, {})
    with pytest.raises(JobError, match="NaN or infinite values in 'bad'"):
        store.load_tensors(path)


def test_a_missing_file_and_a_folder_are_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path, tmp_path / "none" / "deeper"):
        with pytest.raises(MissingError, match=str(path)):
            store.load_tensors(path)


def test_a_disk_that_fills_while_saving_is_explained_and_keeps_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    code = (
        "import torch; from pathlib import Path; from metavqa_cli.store.tensors import save_tensors; "
        f"save_tensors(Path({str(path)!r}), {{'big': torch.zeros(5000)}}, {{}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
        capture_output=True,
        text=True,
    )
    assert f"JobError: cannot write {path}: the file is larger than the system allows" in done.stderr
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_every_refusal_is_a_user_error() -> None:
    assert issubclass(JobError, MetaVQAError) and issubclass(MissingError, MetaVQAError)
