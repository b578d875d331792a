"""Tables, sweeps and controls are lists of cells: none twice, none missing, however they are divided."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.engine.cells import Bench, CellSpec, measured_cell
from metavqa_cli.engine.experiments import control_specs, measured, shard, sweep_specs, table_specs
from metavqa_cli.methods.registry import BY_KEY, CONTROLS, METHODS, QUESTION_CONTROLS
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.events import ProgressMade, RunStarted, StepLogged
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.engine.test_lineage import returned
from tests.miniature import session

SEEDS, SHARES = [0, 1], [0.5, 1.0]


def assert_no_duplicates(specs: list[CellSpec]) -> None:
    assert len(specs) == len(set(specs))
    for spec in specs:
        assert spec.method in BY_KEY
        assert BY_KEY[spec.method].conditional or spec.descriptors == 1.0, "what reads nothing has nothing hidden"


def test_the_table_has_every_method_with_every_seed_share_and_gamma() -> None:
    specs = table_specs([], SEEDS, SHARES)
    assert_no_duplicates(specs)
    expected = sum(len(method.gammas or (None,)) * (len(SHARES) if method.conditional else 1) for method in METHODS)
    assert len(specs) == expected * len(SEEDS)
    assert {spec.method for spec in specs} == {method.key for method in METHODS}
    assert {spec.gamma for spec in specs if spec.method == "task-ldm"} == {1.0, 1.5, None}
    assert [spec.seed for spec in specs] == sorted(spec.seed for spec in specs), "one seed after another"
    assert not [spec for spec in specs if spec.control]


@pytest.mark.parametrize("shares", [[1.0], [0.5], [0.1, 0.5], [0.1, 0.5, 1.0]])
def test_a_method_that_reads_nothing_has_one_cell_whatever_is_hidden(shares: list[float]) -> None:
    specs = table_specs(["multitask", "film"], [0], shares)
    assert [spec for spec in specs if spec.method == "multitask"] == [CellSpec("multitask", 0)]
    assert sorted(spec.descriptors for spec in specs if spec.method == "film") == shares


def test_the_sweep_has_every_gamma_and_what_it_is_compared_with() -> None:
    gammas = [0.0, 1.0, 2.5]
    specs = sweep_specs(["task-ldm", "hvae-ldm"], SEEDS, SHARES, gammas)
    assert_no_duplicates(specs)
    for key in ("task-ldm", "hvae-ldm"):
        own = [spec for spec in specs if spec.method == key]
        assert len(own) == len(SEEDS) * len(SHARES) * (len(gammas) + 1)
        assert {spec.gamma for spec in own} == {*gammas, None}
    others = [spec for spec in specs if not spec.method.endswith("-ldm")]
    assert {spec.method for spec in others} == {"multitask", "task", "task-ldm-w", "cond-multitask"}
    assert len([spec for spec in others if spec.method == "multitask"]) == len(SEEDS)
    assert len([spec for spec in others if spec.method == "cond-multitask"]) == len(SEEDS) * len(SHARES)


def test_every_swept_method_can_be_swept() -> None:
    for method in BY_KEY.values():
        if method.gammas and method.zero_shot:
            assert_no_duplicates(sweep_specs([method.key], [0], [1.0], [1.0]))
            continue
        with pytest.raises(UsageError, match=f"{method.key} has no guidance scale to sweep; choose from hnet-ldm, "):
            sweep_specs([method.key], [0], [1.0], [1.0])


def test_the_controls_have_every_replacement_and_every_memory() -> None:
    specs = control_specs([], SEEDS, [1.0])
    assert_no_duplicates(specs)
    for key in ("task-ldm", "hvae-ldm"):
        own = [spec for spec in specs if spec.method == key and spec.seed == 1]
        assert {spec.control for spec in own} == {None, *QUESTION_CONTROLS} and len(own) == 1 + len(QUESTION_CONTROLS)
    assert {spec.method for spec in specs} >= {
        "multitask",
        "task",
        "regression",
        *(control.key for control in CONTROLS),
    }
    assert_no_duplicates(control_specs(["regression", "film"], SEEDS, SHARES))


@pytest.mark.parametrize("key", ["multitask", "clip", "zoo-mean", "task", "support-majority", "task-ldm-w"])
def test_what_answers_no_question_has_no_control(key: str) -> None:
    with pytest.raises(UsageError, match=f"{key} has no question to replace"):
        control_specs([key], [0], [1.0])


@pytest.mark.parametrize("specs", [table_specs, control_specs])
def test_an_unknown_method_is_named_with_the_nearest(specs: Any) -> None:
    with pytest.raises(UsageError, match=r"there is no method 'multi-task'; did you mean multitask\? There are clip, "):
        specs(["multi-task"], [0], [1.0])


@given(parts=st.integers(1, 60))
def test_shards_divide_the_cells(parts: int) -> None:
    specs = table_specs([], SEEDS, SHARES)
    shards = [shard(specs, part, parts) for part in range(1, parts + 1)]
    assert sorted(map(repr, specs)) == sorted(repr(spec) for each in shards for spec in each)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


# Measuring


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return miniature.copy(tmp_path_factory.mktemp("experiments") / "workspace")


SPECS = [CellSpec("multitask", 0), CellSpec("cond-multitask", 0), CellSpec("cond-multitask", 0, 0.5),
         CellSpec("multitask", 1), CellSpec("cond-multitask", 1), CellSpec("cond-multitask", 1, 0.5),
         CellSpec("cond-multitask", 0, control="shuffled")]  # fmt: skip


def test_the_rows_are_those_of_the_cells(shared: Workspace) -> None:
    rows = returned(measured(session(shared), SPECS))
    found = {(row["method"], row["setting"], row["descriptors"]): row for row in rows}
    assert len(rows) == len(found) == 7
    zero = found["multitask", "zero-shot", 1.0]
    cells = [returned(measured_cell(session(shared), CellSpec("multitask", seed), Bench(session(shared))))
             for seed in (0, 1)]  # fmt: skip
    means = [cell.result()["means"]["zero-shot"] for cell in cells]
    assert zero["mean"] == pytest.approx(sum(means) / 2, abs=1e-3) and zero["seeds"] == [0, 1]
    assert zero["sd"] == pytest.approx(abs(means[0] - means[1]) / 2**0.5, abs=1e-3)
    assert found["cond-multitask", "control", 1.0]["seeds"] == [0]
    assert found["cond-multitask", "control", 1.0]["drop"] is not None


def test_a_second_call_measures_and_trains_nothing(shared: Workspace) -> None:
    once = returned(measured(session(shared), SPECS))
    before, (*events,) = shared.run_ids(), measured(session(shared), SPECS)
    assert not [event for event in events if isinstance(event, (RunStarted, StepLogged))]
    progress = [event for event in events if isinstance(event, ProgressMade)]
    assert [(p.done, p.total) for p in progress] == [(n + 1, len(SPECS)) for n in range(len(SPECS))]
    assert shared.run_ids() == before
    assert returned(measured(session(shared), SPECS)) == once


def test_shards_measured_one_after_another_make_the_whole_table(shared: Workspace, workspace: Workspace) -> None:
    whole = returned(measured(session(shared), SPECS))
    for part in (3, 1, 2):
        returned(measured(session(workspace), shard(SPECS, part, 3)))
    assert sorted(name for name in workspace.run_ids() if name.startswith("cell")) == sorted(
        name for name in shared.run_ids() if name.startswith("cell")
    )
    (*events,) = measured(session(workspace), SPECS)
    assert not [event for event in events if isinstance(event, RunStarted)]
    assert returned(measured(session(workspace), SPECS)) == whole


def test_hidden_questions_train_the_conditional_method_again_and_no_other(workspace: Workspace) -> None:
    (*events,) = measured(session(workspace), [CellSpec("multitask", 0), CellSpec("film", 0), CellSpec("film", 0, 0.5)])
    started = [event.kind for event in events if isinstance(event, RunStarted)]
    assert started == ["cell", "baseline", "cell", "baseline", "cell"]
