"""No damage to any artefact goes unnoticed: `metavqa verify` names it, and no reader crashes or returns anything else.

Every damage is looked at twice: with what `metavqa verify` does for the file, which has to name it, and with the
product's own reader, which has to refuse it or to return exactly what the whole file holds (of a log: some of it).
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from metavqa_cli.engine import audit, run_audit
from metavqa_cli.engine.build import _read_recipe
from metavqa_cli.engine.classifier import load_classifier, save_classifier
from metavqa_cli.engine.dataset import DatasetFolder
from metavqa_cli.engine.indexing import open_tasks
from metavqa_cli.engine.manifest import read_manifest
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.run_audit import Finding, audit_run
from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.schema.events import CheckpointSaved, RunInterrupted, RunStarted, StepLogged
from metavqa_cli.store import runs
from metavqa_cli.store.features import FeatureStore
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_tensors, save_tensors
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.engine.test_classifier import MADE
from tests.engine.test_lineage import returned

PAGE = 4096
Damage = tuple[str, Callable[[bytes], bytes]]


@dataclass
class Count:
    """What a file went through."""

    tried: int = 0
    refused: int = 0
    unharmed: int = 0
    unnoticed: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished world, a run that was interrupted, and a classifier."""
    workspace = miniature.copy(tmp_path_factory.mktemp("audit") / "workspace")
    like = miniature.run("hvae", workspace=workspace)
    manifest = like.manifest()
    run = runs.create(workspace, "zoo", "ab" * 32, like.config(), manifest["parents"], manifest["dataset"])
    run.append(RunStarted(run.id, "zoo", 9))
    for step in range(4):
        run.append(StepLogged(step, {"loss": 1 / (step + 1)}))
    tensors = {"model/a": torch.arange(7.0), "optimizer/0/step": torch.tensor(3)}
    save_tensors(run.state_path, tensors, {"run": run.id, "log": run.mark_log()})
    run.append(CheckpointSaved(3))
    run.append(RunInterrupted(run.id, 3))
    save_classifier(MADE, workspace.root / "made.safetensors")
    open_tasks(workspace.dataset_dir(miniature.NAME))
    return workspace


def interrupted(world: Workspace) -> Run:
    return runs.get(world, "zoo-abababab")


def files_of(world: Workspace) -> dict[str, tuple[Path, Callable[[], Any], Callable[[], list[str]]]]:
    """Each kind of artefact: its file, its reader, and what `verify` names."""
    done, stopped, dataset = miniature.run("hvae", workspace=world), interrupted(world), world.dataset_dir("mini")
    images, texts = (
        dataset / "features" / "images-00001-of-00001.safetensors",
        dataset / "features" / "texts.safetensors",
    )
    made = world.root / "made.safetensors"

    def of(run: Run) -> list[str]:
        return [finding.artefact for finding in audit_run(run) if finding.is_bad or finding.problem == "torn"]

    def of_dataset() -> list[str]:
        found: list[Finding] = returned(audit._dataset_audited(dataset, True))
        return [finding.artefact for finding in found if finding.is_bad]

    def tensors(run: Run, path: Path) -> Any:
        loaded, header = load_tensors(path)
        run.own(path, header, "")
        return loaded, header

    def features(path: Path) -> Any:
        store = FeatureStore.open(path)
        return store.header, store.ids, store.verified().tolist()

    return {
        "run.json": (done.path / "run.json", done.manifest, lambda: of(done)),
        "config.toml": (done.path / "config.toml", done.config, lambda: of(done)),
        "result.json": (done.path / "result.json", done.result, lambda: of(done)),
        "model": (done.model_path, lambda: tensors(done, done.model_path), lambda: of(done)),
        "state": (stopped.state_path, lambda: tensors(stopped, stopped.state_path), lambda: of(stopped)),
        "finished log": (done.events_path, lambda: done.events()[0], lambda: of(done)),
        "running log": (stopped.events_path, lambda: stopped.events()[0], lambda: of(stopped)),
        "classifier": (made, lambda: vars(load_classifier(made)),
                       lambda: [each.artefact for each in audit.verify_files([made]).bad]),
        "dataset.json": (dataset / "dataset.json", lambda: read_manifest(dataset), of_dataset),
        "recipe.json": (dataset / "recipe.json", lambda: _recipe(dataset / "recipe.json"), of_dataset),
        "tasks.jsonl": (dataset / "tasks.jsonl", lambda: list(DatasetFolder(dataset).questions.tasks), of_dataset),
        "images": (images, lambda: features(images), of_dataset),
        "texts": (texts, lambda: features(texts), of_dataset),
        "index": (dataset / ".tasks.safetensors", lambda: _tasks(dataset), of_dataset),
    }  # fmt: skip


def _recipe(path: Path) -> Any:
    """A damaged recipe counts as none: the build begins anew."""
    found = _read_recipe(path)
    if found is None:
        raise MetaVQAError("none")
    return found


def _tasks(dataset: Path) -> Any:
    """What is read through the index, which is made again when it is damaged."""
    kept = (dataset / ".tasks.safetensors").read_bytes()
    try:
        file = open_tasks(dataset)
        return [file.index.arrays[name].whole().tolist() for name in sorted(file.index.arrays)]
    finally:
        (dataset / ".tasks.safetensors").write_bytes(kept)


def same(found: Any, whole: Any) -> bool:
    if isinstance(whole, torch.Tensor):
        return isinstance(found, torch.Tensor) and found.dtype == whole.dtype and torch.equal(found, whole)
    if isinstance(whole, dict):
        return found.keys() == whole.keys() and all(same(found[key], whole[key]) for key in whole)
    if isinstance(whole, (list, tuple)):
        return len(found) == len(whole) and all(map(same, found, whole))
    return bool(found == whole)


def is_part(found: list[Any], whole: list[Any]) -> bool:
    """Whether all of ``found`` is in ``whole``."""
    return all(each in whole for each in found)


def flips(data: bytes, bits: "list[int] | range") -> Iterator[Damage]:
    for bit in bits:
        at, mask = divmod(bit, 8)
        yield (
            f"bit {mask} of byte {at}",
            lambda raw, at=at, mask=mask: (  # type: ignore[misc]
                raw[:at] + bytes([raw[at] ^ 1 << mask]) + raw[at + 1 :]
            ),
        )


def others(data: bytes, lengths: "list[int] | range") -> Iterator[Damage]:
    """Truncations; pages of zeros, and pages that come twice, as a failing disk leaves them."""
    for length in lengths:
        yield f"cut to {length}", lambda raw, length=length: raw[:length]  # type: ignore[misc]
    for start in range(0, len(data), max(PAGE, len(data) // 3)):
        stop = min(start + PAGE, len(data))
        yield f"zeros from {start}", lambda raw, a=start, b=stop: raw[:a] + bytes(b - a) + raw[b:]  # type: ignore[misc]
        yield f"twice {start}", lambda raw, a=start, b=stop: raw[:b] + raw[a:b] + raw[b:]  # type: ignore[misc]
        yield f"over {start}", lambda raw, a=start, b=stop: raw[:a] + raw[: b - a] + raw[b:]  # type: ignore[misc]
    yield "a byte more", lambda raw: raw + b"\0"


def harm(world: Workspace, name: str, damages: Callable[[bytes], Iterator[Damage]], log: bool) -> Count:
    path, read, named = files_of(world)[name]
    data, whole = path.read_bytes(), read()
    count = Count()
    assert named() == []
    try:
        for label, damage in damages(data):
            if (changed := damage(data)) == data:
                continue
            path.write_bytes(changed)
            count.tried += 1
            if label.startswith("cut") and name == "running log":
                pass  # whatever its end is, a killed process may have left it so
            elif not any(artefact.endswith(path.name) for artefact in named()):
                count.unnoticed.append(label)
            try:
                found = read()
            except MetaVQAError:
                count.refused += 1
                continue
            assert (is_part if log else same)(found, whole), f"{name} with {label} reads as something else"
            count.unharmed += 1
    finally:
        path.write_bytes(data)
    return count


KINDS = ["run.json", "config.toml", "result.json", "model", "state", "finished log", "running log", "classifier",
         "dataset.json", "recipe.json", "tasks.jsonl", "images", "texts", "index"]  # fmt: skip
SLOW = {"dataset.json", "recipe.json", "tasks.jsonl", "images", "texts", "index"}  # each look hashes all images


@pytest.mark.parametrize("name", KINDS)
def test_no_damage_goes_unnoticed(world: Workspace, name: str) -> None:
    chosen = random.Random(name)

    def some(data: bytes) -> Iterator[Damage]:
        many = 1 if name in SLOW else 25
        yield from flips(data, chosen.sample(range(8 * len(data)), many))
        yield from flips(data, chosen.sample(range(8 * min(600, len(data))), many))  # heads
        yield from others(data, [*chosen.sample(range(len(data)), max(1, many // 4)), len(data) - 1])

    count = harm(world, name, some, name.endswith("log"))
    assert count.tried and not count.unnoticed, count.unnoticed


@pytest.mark.nightly
@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("name", KINDS)
def test_no_damage_at_all_goes_unnoticed(world: Workspace, name: str) -> None:
    """Every bit and every length of small files; samples of others, more of their heads. Prints what it counted."""
    chosen = random.Random(name)

    def many(data: bytes) -> Iterator[Damage]:
        most = 200 if name in SLOW else 16_000
        bits = range(8 * len(data)) if 8 * len(data) <= most else sorted(chosen.sample(range(8 * len(data)), most))
        yield from flips(data, bits)
        heads = range(8 * min(1200, len(data)))
        yield from flips(data, sorted(chosen.sample(heads, min(most // 4, len(heads)))))
        lengths = range(len(data)) if len(data) <= most // 4 else sorted(chosen.sample(range(len(data)), most // 4))
        yield from others(data, lengths)

    count = harm(world, name, many, name.endswith("log"))
    noticed = count.tried - len(count.unnoticed)
    print(f"\n{name}: tried {count.tried:,}, noticed {noticed:,}, unnoticed "
          f"{len(count.unnoticed):,}; refused {count.refused:,}, read unharmed {count.unharmed:,}")  # fmt: skip
    assert not count.unnoticed, count.unnoticed[:20]


def bad(run: Run) -> set[str]:
    return {finding.artefact.rpartition("/")[2] for finding in audit_run(run) if finding.is_bad}


@pytest.mark.parametrize("name", ["run.json", "config.toml", "result.json", "model.safetensors", "events.jsonl"])
def test_a_file_of_another_run_of_the_kind_is_noticed(world: Workspace, name: str) -> None:
    one, other = (miniature.run("hvae", variant, world) for variant in ("weights", "task"))
    mine, theirs = (run.path / name for run in (one, other))
    kept, swapped = mine.read_bytes(), theirs.read_bytes()
    read = {
        "run.json": one.manifest, "config.toml": one.config, "result.json": one.result,
        "model.safetensors": lambda: load_model(one, miniature.CPU),
    }  # fmt: skip
    try:
        mine.write_bytes(swapped)
        theirs.write_bytes(kept)
        assert name in bad(one) and name in bad(other)
        if name in read:
            with pytest.raises(MetaVQAError, match=rf"{name}|{one.id}"):
                read[name]()
    finally:
        mine.write_bytes(kept)
        theirs.write_bytes(swapped)
    assert not bad(one) and not bad(other)


def test_a_file_that_is_gone_is_noticed(world: Workspace) -> None:
    for run, names in (
        (miniature.run("hvae", workspace=world), ["run.json", "config.toml", "result.json", "model.safetensors",
                                                  "events.jsonl"]),
        (interrupted(world), ["run.json", "config.toml", "state.safetensors"]),
    ):  # fmt: skip
        for name in names:
            kept = (run.path / name).read_bytes()
            (run.path / name).unlink()
            assert name in bad(run), f"{name} is gone"
            (run.path / name).write_bytes(kept)


def test_every_line_that_is_cut_out_of_a_finished_log_is_noticed(world: Workspace) -> None:
    run = miniature.run("hvae", workspace=world)
    kept = run.events_path.read_bytes()
    lines = kept.splitlines(keepends=True)
    for number in range(len(lines)):
        run.events_path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
        assert bad(run) == {"events.jsonl"}, f"line {number + 1}"
    run.events_path.write_bytes(kept)


def test_lines_of_an_unfinished_log_that_are_older_than_its_checkpoint_cannot_be_cut(world: Workspace) -> None:
    run = interrupted(world)
    kept = run.events_path.read_bytes()
    lines = kept.splitlines(keepends=True)
    vouched = len(lines) - 2  # the checkpoint is written before the log says so
    for number in range(len(lines)):
        run.events_path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
        assert bad(run) == ({"events.jsonl"} if number < vouched else set()), f"without line {number + 1}"
        run.events_path.write_bytes(b"".join(lines[:number]))
        assert bad(run) == ({"events.jsonl"} if number < vouched else set()), f"cut before line {number + 1}"
    run.events_path.unlink()
    assert bad(run) == {"events.jsonl"}
    run.events_path.write_bytes(kept)
    assert not bad(run)


def test_a_line_that_a_killed_process_tore_is_no_damage(world: Workspace) -> None:
    run = interrupted(world)
    kept = run.events_path.read_bytes()
    for length in range(1, len(kept.splitlines()[-1]) - 1):
        run.events_path.write_bytes(kept[: -1 - length])
        assert [each.problem for each in audit_run(run)] == ["torn"], length
        if length % 20 == 0:
            run.append(RunStarted(run.id, "zoo", 9, resumed_at=3))
            assert [each.problem for each in audit_run(run)] == ["torn"], length
    run.events_path.write_bytes(kept)


def test_a_run_that_is_removed_or_goes_on_while_it_is_checked_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = miniature.copy(tmp_path / "workspace")
    run, original, looks = miniature.run("ldm", workspace=workspace), audit.audit_run, list[str]()
    removed = Finding("x", "missing", "", "")

    def meanwhile(found: Run) -> Iterator[Finding]:
        looks.append(found.id)
        yield from [removed] if looks.count(run.id) == 1 and found.id == run.id else original(found)

    monkeypatch.setattr(audit, "audit_run", meanwhile)
    assert returned(audit.verify_workspace(workspace)).findings == ()
    assert looks.count(run.id) == 2

    def gone(found: Run) -> Iterator[Finding]:
        if found.id == run.id and found.path.exists():
            shutil.rmtree(found.path)
        yield from original(found)

    monkeypatch.setattr(audit, "audit_run", gone)
    assert run.id not in {each.artefact for each in returned(audit.verify_workspace(workspace)).findings}
    assert returned(audit.verify_workspace(workspace)).bad == ()


@pytest.mark.parametrize("name", run_audit.FILES)
def test_what_is_no_file_is_damage(world: Workspace, tmp_path: Path, name: str) -> None:
    run = Run(tmp_path / interrupted(world).id)
    shutil.copytree(interrupted(world).path, run.path)
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    assert [(found.artefact, found.detail) for found in audit_run(run)] == [
        (f"runs/{run.id}/{name}", "it is not a file")
    ]


def test_hidden_folders_are_no_runs(world: Workspace) -> None:
    hidden = world.runs_dir / ".checkpoints"
    hidden.mkdir()
    try:
        assert returned(audit.verify_workspace(world)).bad == ()
    finally:
        hidden.rmdir()


def test_what_the_system_does_not_give_is_said_in_words() -> None:
    memory = Path("/proc/self/mem")  # its first page is nobody's: reading it is an input/output error
    if not memory.exists():
        pytest.skip("there is no /proc")
    (found,) = audit.verify_files([memory]).findings
    assert (found.problem, found.detail) == ("damaged", "it cannot be read: Input/output error")
