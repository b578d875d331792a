"""The windows that the room γ sweep opens: methods, datasets, and the form that starts a sweep."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from metavqa_cli.engine.configuration import preset_names
from metavqa_cli.tui.sweep_data import curve_name, left_aside, shown_curves
from metavqa_cli.tui.sweep_feed import Board
from metavqa_cli.tui.sweep_state import State
from metavqa_cli.tui.widgets.choose import ChooseOne, ChooseSome

if TYPE_CHECKING:
    from metavqa_cli.tui.app import Dashboard
    from metavqa_cli.tui.widgets.command_form import Started


def choose_methods(app: "Dashboard", state: State, then: Callable[[State], None]) -> None:
    """Which curves are drawn; the first one is scrubbed."""
    sweep = state.board.sweep
    if sweep is None or not sweep.curves:
        return
    curves, current = sweep.curves, state.curve
    shown = [at for at, curve in enumerate(curves) if curve in shown_curves(sweep, state.choice)]
    shown.sort(key=lambda at: curves[at] is not current)

    def take(chosen: tuple[int, ...] | None) -> None:
        if chosen:
            choice = replace(state.choice, current=curves[chosen[0]].key, hidden=left_aside(curves, chosen))
            then(replace(state, choice=choice))

    names = [app.look.text(curve_name(curve, curves)) for curve in curves]
    app.push_screen(ChooseSome("Methods: the first is scrubbed", names, shown, len(names)), take)


def choose_dataset(app: "Dashboard", board: Board, then: Callable[[str], None]) -> None:
    """Another dataset of the workspace."""
    if board.datasets:
        now = ChooseOne("Dataset", board.datasets, board.dataset)
        app.push_screen(now, lambda name: None if name is None else then(name))


def fill_in_sweep(app: "Dashboard", board: Board) -> None:
    """The form that starts a sweep as a job."""
    from metavqa_cli.tui.sweep_command import SweepWish
    from metavqa_cli.tui.widgets.sweep_form import SweepForm  # not before the first paint

    def start(answer: "Started | None") -> None:
        if answer is not None:
            app.start_job(answer[0], outlives=answer[1])

    wish = SweepWish(dataset=board.dataset or "", preset=board.preset)
    app.push_screen(SweepForm(preset_names(), app.look, wish), start)
