"""The room Ask, driven by keys on the finished miniature."""

import asyncio
import json
import shlex
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from metavqa_cli.engine.ask import Asker
from metavqa_cli.engine.request import Request
from metavqa_cli.schema.errors import MissingError
from metavqa_cli.store import removal, runs
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.app import Dashboard, make_app
from metavqa_cli.tui.asking import Asking, Status
from metavqa_cli.tui.frame import frame
from metavqa_cli.tui.results import Result
from metavqa_cli.tui.screens.ask import AskRoom
from metavqa_cli.tui.widgets.answer_view import Answers
from metavqa_cli.tui.widgets.file_tree import MOST, FileTree
from metavqa_cli.tui.widgets.image_chooser import ImageChooser
from metavqa_cli.tui.widgets.path_dialog import PathDialog
from metavqa_cli.tui.widgets.question_form import QuestionForm
from metavqa_cli.tui.widgets.result_desk import ResultDesk
from tests import miniature
from tests.cli.terminal import python
from tests.tui.pilots import until


@pytest.fixture(autouse=True)
def quick_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miniature.ENCODER, miniature.loaded_encoder)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three images of the miniature and one that is damaged."""
    made = tmp_path / "pictures"
    made.mkdir()
    source = miniature.dataset()
    for number, image in enumerate(source.tasks.image_ids()[:3]):
        shutil.copy(source.image_path(image), made / f"{number}.png")
    (made / "broken.png").write_bytes(b"not a picture")
    (made / "notes.txt").write_text("")
    monkeypatch.chdir(made)
    return made


def question() -> str:
    return miniature.dataset().tasks.of("train")[0].question


@dataclass
class Visit:
    """The room Ask of a running dashboard."""

    app: Dashboard
    pilot: Pilot[Any]
    said: list[str] = field(default_factory=list)

    @property
    def room(self) -> AskRoom:
        assert isinstance(self.app.room, AskRoom)
        return self.app.room

    @property
    def form(self) -> QuestionForm:
        return self.room.query_one(QuestionForm)

    @property
    def images(self) -> ImageChooser:
        return self.room.query_one(ImageChooser)

    @property
    def desk(self) -> ResultDesk:
        return self.room.query_one(ResultDesk)

    @property
    def result(self) -> Result | None:
        return self.desk.history.current

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        await until(self.pilot, condition, what)

    async def settle(self) -> None:
        await self.until(lambda: self.app.room is not None and self.app.room.settled, "settled")

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def type(self, name: str, text: str) -> None:
        """Type ``text`` over whatever is in a field."""
        self.form.field(name).focus()
        await self.press("end", "ctrl+u", *text)

    async def ask(self, text: str) -> Result:
        """Type a question, press enter, and wait for what comes."""
        number = self.desk.history.results[0].number if self.desk.history.results else 0
        await self.type("question", text)
        await self.settle()
        await self.press("enter")
        await self.until(lambda: self.result is not None and self.result.number > number, "a result")
        await self.settle()
        assert self.result is not None
        return self.result

    def text(self) -> str:
        return frame(self.app).text


@asynccontextmanager
async def visiting(
    workspace: Workspace | None = None, size: tuple[int, int] = (120, 40), **how: Any
) -> AsyncIterator[Visit]:
    app = make_app((workspace or miniature.finished()).root, room="ask", look_seconds=0.05, **how)
    async with app.run_test(size=size) as pilot:
        visit = Visit(app, pilot)
        say = app.say
        app.say = lambda sentence, **rest: (visit.said.append(sentence), say(sentence, **rest))  # type: ignore[assignment]
        await visit.until(lambda: isinstance(app.room, AskRoom), "the room")
        yield visit


def run(test: Callable[[Visit], Awaitable[None]], **how: Any) -> None:
    async def main() -> None:
        async with visiting(**how) as visit:
            await visit.settle()
            await test(visit)

    asyncio.run(main())


async def with_images(visit: Visit, count: int = 2) -> None:
    visit.images.set_chosen(miniature_images(count))
    await visit.settle()


def miniature_images(count: int) -> list[Path]:
    source = miniature.dataset()
    return [source.image_path(image) for image in source.tasks.image_ids()[:count]]


# Typing


def test_a_typed_question_brings_its_neighbours_answers_and_template(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        task = miniature.dataset().tasks.of("train")[0]
        await visit.type("question", task.question)
        await visit.until(  # that of the whole question, not of its beginning
            lambda: visit.form.proposal is not None and not visit.form.proposal.by_words
            and visit.form.proposal.question == task.question
        )  # fmt: skip
        proposal = visit.form.proposal
        assert proposal is not None and proposal.nearest[0].question == task.question
        assert proposal.nearest[0].similarity == pytest.approx(1, abs=1e-4)
        assert visit.form.text("answers").split(",")[: len(task.answers)] == list(task.answers)
        assert visit.form.text("template") == task.template
        assert f"1.00 {task.question}" in visit.text()

    run(test)


def test_answers_that_were_typed_are_kept_until_the_proposal_is_asked_back(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        await visit.type("question", question())
        await visit.settle()
        proposed = visit.form.text("answers")
        await visit.type("answers", "red,blue")
        await visit.type("question", "How many cars are there?")
        await visit.settle()
        assert visit.form.text("answers") == "red,blue" and visit.form.request().answers == ("red", "blue")
        await visit.press("escape", "a")
        assert visit.form.text("answers") not in ("", "red,blue") and visit.form.request().answers is None
        await visit.type("question", question())
        await visit.settle()
        assert visit.form.text("answers") == proposed

    run(test)


def test_before_torch_is_there_words_find_the_neighbours_and_it_is_said(folder: Path) -> None:
    """The service is held while it loads, as a slow disk would hold it."""
    import threading

    may = threading.Event()

    def slowly(*args: Any) -> Asker:
        assert may.wait(60)
        raise MissingError("later")

    async def test() -> None:
        async with visiting(asking=lambda workspace, dataset: Asking(workspace, dataset, slowly)) as visit:
            await visit.until(lambda: visit.app.asking.status.state == "loading")
            await visit.until(lambda: visit.room.proposer.book.tasks, "the dataset")
            await visit.type("question", question())
            await visit.until(lambda: visit.form.proposal is not None)
            proposal = visit.form.proposal
            assert proposal is not None and proposal.by_words and proposal.nearest[0].question == question()
            await visit.until(lambda: "near by its words" in visit.text() and "loading torch" in visit.text())
            assert visit.form.text("answers")
            may.set()
            await visit.until(lambda: "later" in visit.room.troubles.get("model", ""))

    asyncio.run(test())


# Images


def test_images_are_chosen_in_the_tree_and_a_preview_is_shown(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        tree = visit.room.query_one(FileTree)
        tree.focus()
        await visit.until(lambda: len(tree.root.children) == 4, "the folder")
        assert [str(node.label).strip() for node in tree.root.children] == ["0.png", "1.png", "2.png", "broken.png"]
        await visit.press("down", "space")
        await visit.until(lambda: list(visit.images.chosen) == [folder / "0.png"])
        await visit.until(lambda: visit.images.previewed == folder / "0.png")
        assert "1 chosen" in visit.text() and "● 0.png" in visit.text()
        await visit.press("space")
        await visit.until(lambda: not visit.images.chosen)
        await visit.press("up", "space")  # the folder: all of it
        await visit.until(lambda: len(visit.images.chosen) == 4)

    run(test)


def test_images_are_chosen_by_a_path_or_pattern_and_nothing_is_said_to_match(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        path = visit.room.query_one("#ask-path", Input)
        path.focus()
        await visit.press(*"[01].png", "enter")
        await visit.until(lambda: [file.name for file in visit.images.chosen] == ["0.png", "1.png"])
        assert path.value == ""
        await visit.press(*"none/*.png", "enter")
        await visit.until(lambda: "nothing matches 'none/*.png'" in visit.room.troubles.get("images", ""))
        assert len(visit.images.chosen) == 2

    run(test)


def test_images_of_the_nearest_question_are_offered_with_their_answers(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        await visit.type("question", question())
        await visit.settle()
        await visit.press("escape", "d")
        assert visit.images.tab == "dataset" and visit.images.asked_of is not None
        assert visit.images.asked_of.question == question()
        shown = visit.room.query_one("#dataset", OptionList)
        await visit.press("down", "space")
        await visit.until(lambda: len(visit.images.chosen) == 1)
        known = {visit.images.asked_of.answers[label] for _, label in visit.images.asked_of.query}
        assert any(str(shown.get_option_at_index(1).prompt).endswith(answer) for answer in known)
        await visit.press("d")
        assert visit.images.tab == "chosen"
        await visit.press("space")
        await visit.until(lambda: not visit.images.chosen)

    run(test)


def test_a_folder_that_cannot_be_read_says_so_in_the_tree(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metavqa_cli.tui.widgets import file_tree

    (folder / "locked").mkdir()
    usual = file_tree.list_folder

    def locked(path: Path) -> Any:
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return usual(path)

    monkeypatch.setattr(file_tree, "list_folder", locked)

    async def test(visit: Visit) -> None:
        tree = visit.room.query_one(FileTree)
        tree.focus()
        await visit.until(lambda: len(tree.root.children) == 5, "the folder")
        await visit.press("down", "enter")
        await visit.until(lambda: "! Permission denied" in visit.text())

    run(test)


# Asking


def test_enter_generates_and_judges_as_the_engine_does(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        await with_images(visit, 3)
        result = await visit.ask(question())
        asked: list[Any] = []
        visit.app.asking.submit(lambda asker, _: asker.ask(Request(question())), asked.append, "direct")
        await visit.until(lambda: asked)
        assert (result.answer.classifier.weights == asked[0].classifier.weights).all()
        assert [Path(one.image) for one in result.answer.judgements] == miniature_images(3)
        screen = visit.text()
        for word in ("zero-shot CLIP", "generate", "judge", "γ", "4 steps", "1 sample", "█"):
            assert word in screen
        assert any("built-in encoder knows only the Scenes world" in warning for warning in result.warnings)

    run(test)


def test_a_question_far_from_all_others_is_warned_of(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        result = await visit.ask("Zebra xylophone?")
        assert any("far from all training questions" in warning for warning in result.warnings)
        assert "! the question is far from all training questions" in " ".join(visit.text().split())

    run(test)


def test_changing_gamma_asks_again_without_embedding_again_and_shows_what_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(visit: Visit) -> None:
        await with_images(visit, 3)
        first = await visit.ask(question())
        opened: list[Path] = []
        from metavqa_cli.engine import judging

        usual = judging.open_image
        monkeypatch.setattr(judging, "open_image", lambda path: opened.append(path) or usual(path))  # type: ignore[func-returns-value]
        await visit.press("escape", "right_square_bracket")
        await visit.until(lambda: visit.result is not first)
        second = visit.result
        assert second is not None and second.gamma == first.gamma + 0.25 and not opened
        assert visit.form.text("gamma") == f"{second.gamma:g}"
        assert f"γ {first.gamma:g} → {second.gamma:g}" in visit.text()
        await visit.press("left_square_bracket")
        await visit.until(lambda: visit.result is not second)
        third = visit.result
        assert third is not None and third.answer.judgements == first.answer.judgements

    run(test)


def test_samples_and_sampler_are_changed_by_keys(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        first = await visit.ask(question())
        await visit.press("escape", "right_curly_bracket")
        await visit.until(lambda: visit.result is not first)
        assert visit.result is not None and visit.result.answer.classifier.sampler["samples"] == 2
        second = visit.result
        await visit.press("s")
        await visit.until(lambda: visit.result is not second)
        assert visit.result.answer.classifier.sampler == {"sampler": "ddpm", "steps": 50, "samples": 2}

    run(test)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [("gamma", "much", "gamma is 'much'"), ("gamma", "-1", "gamma is -1.0"), ("samples", "0", "samples is '0'"),
     ("sampler", "euler", "the sampler is 'euler'"), ("steps", "x", "steps is 'x'"),
     ("answers", "red", "two different"), ("template", "no slot", "exactly one {}"),
     ("question", " ", "the question is empty"), ("steps", "51", "the diffusion has only 50 steps")],
)  # fmt: skip
def test_what_cannot_be_asked_is_said_in_place(name: str, text: str, words: str, folder: Path) -> None:
    async def test(visit: Visit) -> None:
        await visit.type("question", question())
        await visit.settle()
        await visit.type(name, text)
        await visit.press("enter")
        await visit.until(lambda: words in visit.room.troubles.get("ask", ""))
        await visit.settle()
        assert visit.result is None

    run(test)


def test_a_corrupt_image_costs_a_sentence_and_the_others_are_judged(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        visit.images.set_chosen([folder / "0.png", folder / "broken.png", folder / "gone.png"])
        result = await visit.ask(question())
        assert [Path(one.image).name for one in result.answer.judgements] == ["0.png"]
        assert len(result.wrong) == 2 and "broken.png is not an image" in result.wrong[0]
        assert "gone.png cannot be read" in result.wrong[1]
        tree = visit.room.query_one(FileTree)
        tree.focus()
        await visit.press("down", "down", "down", "down")
        await visit.until(lambda: visit.images.previewed == folder / "broken.png")

    run(test)


def test_a_running_generation_is_cancelled_and_the_earlier_result_stays(folder: Path) -> None:
    import threading

    async def test(visit: Visit) -> None:
        first = await visit.ask(question())
        steps, tenth, may = [0], threading.Event(), threading.Event()

        def count(*_: Any) -> None:
            steps[0] += 1
            if steps[0] == 10:
                tenth.set()
                assert may.wait(60)

        hooks: list[Any] = []
        visit.app.asking.submit(
            lambda asker, _: asker.ldm.sampler.denoiser.register_forward_hook(count), hooks.append, "hook"
        )
        await visit.until(lambda: hooks)
        await visit.press("escape", "s")
        await visit.until(tenth.is_set)
        await visit.until(lambda: "generating" in visit.text())
        await visit.press("x")
        may.set()
        await visit.until(lambda: not visit.room.state.is_generating)
        hooks[0].remove()
        assert steps == [10] and visit.result is first
        assert any("cancelled" in sentence for sentence in visit.said)
        await visit.press("right_square_bracket")
        await visit.until(lambda: visit.result is not first)

    run(test)


# History


def test_results_are_kept_and_brought_back_with_what_was_asked(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        await with_images(visit, 2)
        await visit.type("gamma", "2")
        first = await visit.ask(question())
        await with_images(visit, 1)
        await visit.type("gamma", "0.5")
        await visit.type("answers", "red,blue")
        second = await visit.ask("How many cars are there?")
        assert second.gamma == 0.5 and visit.desk.history.results == [second, first]
        visit.room.query_one("#ask-history").focus()
        await visit.press("down", "enter")
        await visit.until(lambda: visit.result is first)
        await visit.settle()
        assert visit.form.question == question() and visit.form.text("gamma") == "2.0"
        assert visit.form.request() == first.request and list(visit.images.chosen) == list(first.files)

    run(test)


def test_two_results_are_pinned_side_by_side_and_one_above_the_other_where_it_is_narrow(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        await with_images(visit, 1)
        first = await visit.ask(question())
        await visit.press("escape", "p", "right_square_bracket")
        await visit.until(lambda: visit.result is not first)
        await visit.press("p")
        await visit.until(lambda: len(visit.desk.history.pinned) == 2)
        views = [view for view in visit.room.query_one(Answers).views if view.display]
        assert [view.shown.result for view in views if view.shown] == visit.desk.history.pinned
        assert all(view.shown and view.shown.pinned for view in views)
        await visit.until(lambda: views[0].region.y == views[1].region.y, "side by side")
        await visit.pilot.resize_terminal(70, 40)
        await visit.until(lambda: views[0].region.x == views[1].region.x, "one above the other")
        await visit.press("p")
        assert len(visit.desk.history.pinned) == 1

    run(test)


def test_a_classifier_is_saved_and_an_existing_file_only_replaced_when_told(folder: Path) -> None:
    from metavqa_cli.engine.classifier import load_classifier

    async def test(visit: Visit) -> None:
        result = await visit.ask(question())
        (folder / "old.safetensors").write_text("precious")
        await visit.press("escape", "w")
        await visit.until(lambda: isinstance(visit.app.screen, PathDialog))
        await visit.press("end", "ctrl+u", *"old.safetensors", "enter")
        await visit.until(lambda: not isinstance(visit.app.screen, PathDialog | AskRoom), "asked whether to replace")
        await visit.press("escape")
        assert (folder / "old.safetensors").read_text() == "precious"
        await visit.press("w")
        await visit.until(lambda: isinstance(visit.app.screen, PathDialog))
        await visit.press("end", "ctrl+u", *"old.safetensors", "enter")
        await visit.until(lambda: not isinstance(visit.app.screen, PathDialog | AskRoom))
        await visit.press("y")
        await visit.until(lambda: any(said.startswith("wrote old.safetensors") for said in visit.said))
        saved = load_classifier(folder / "old.safetensors")
        assert (saved.weights == result.answer.classifier.weights).all() and saved.question == question()

    run(test)


def test_a_classifier_that_cannot_be_written_is_said(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        await visit.ask(question())
        await visit.press("escape", "w")
        await visit.until(lambda: isinstance(visit.app.screen, PathDialog))
        await visit.press("end", "ctrl+u", *str(folder), "enter")
        await visit.until(lambda: any("is a folder; name a file in it" in said for said in visit.said))
        await visit.press("w")
        await visit.until(lambda: isinstance(visit.app.screen, PathDialog))
        await visit.press("end", "ctrl+u", *"notes.txt/x.safetensors", "enter")
        await visit.until(lambda: any("notes.txt" in said and "wrote" not in said for said in visit.said))

    run(test)


def test_the_copied_command_gives_the_same_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from metavqa_cli.cli.app import run as metavqa

    copied: list[str] = []

    async def test(visit: Visit) -> None:
        visit.app.copy = copied.append  # type: ignore[assignment]
        visit.images.set_chosen([folder / "0.png", folder / "1.png"])
        await visit.type("seed", "3")
        await visit.type("template", "paint it {}")
        await visit.ask("What colour is the dog's hat?")
        await visit.press("escape", "right_square_bracket", "right_curly_bracket")
        await visit.settle()
        await visit.press("c")
        await visit.until(lambda: copied)
        results.append(visit.result)

    results: list[Result | None] = []
    run(test)
    result = results[0]
    assert result is not None
    words = shlex.split(copied[0])
    assert words[0] == "metavqa" and metavqa([*words[1:], "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    made = result.answer.classifier
    assert (printed["gamma"], printed["seed"], printed["sampler"]) == (made.gamma, 3, made.sampler)
    assert (printed["template"], printed["answers"]) == ("paint it {}", list(made.answers))
    for there, here in zip(printed["images"], result.answer.judgements, strict=True):
        assert there["image"] == here.image
        assert [one["answer"] for one in there["ranked"]] == [answer for answer, _ in here.ranked]
        assert [one["probability"] for one in there["ranked"]] == pytest.approx([p for _, p in here.ranked], abs=2e-5)


# Coming and going


def test_a_visit_brings_question_and_images(folder: Path) -> None:
    async def test() -> None:
        app = make_app(miniature.finished().root, room="runs", look_seconds=0.05)
        async with app.run_test(size=(120, 40)) as pilot:
            visit = Visit(app, pilot)
            await until(pilot, lambda: app.snapshot.views)
            app.visit("ask", question=question(), images=[folder / "0.png"])
            await until(pilot, lambda: isinstance(app.room, AskRoom))
            await visit.settle()
            assert visit.form.question == question() and list(visit.images.chosen) == [folder / "0.png"]
            await pilot.press("enter")
            await visit.until(lambda: visit.result is not None)

    asyncio.run(test())


def test_a_run_that_is_deleted_while_loaded_is_said_and_still_answers(folder: Path, tmp_path: Path) -> None:
    workspace = miniature.copy(tmp_path / "workspace")

    async def test(visit: Visit) -> None:
        loaded = visit.app.asking.status.run
        assert loaded is not None
        removal.remove(runs.get(workspace, loaded), force=True)
        await visit.until(lambda: f"the run {loaded} is gone" in visit.room.troubles.get("run", ""))
        result = await visit.ask(question())
        assert result.run == loaded

    run(test, workspace=workspace)


def test_an_empty_workspace_says_what_to_do_and_goes_on_when_there_is_a_run(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    root.mkdir()

    async def test(visit: Visit) -> None:
        assert "metavqa train ldm" in visit.room.troubles["model"]
        await visit.type("question", "What is it?")
        await visit.settle()
        await visit.press("enter")
        await visit.settle()
        assert visit.result is None and "metavqa train ldm" in visit.room.troubles["model"]
        miniature.copy(tmp_path / "other")
        for name in ("datasets", "runs"):
            (tmp_path / "other" / name).rename(root / name)
        await visit.until(lambda: visit.app.asking.status.state == "ready", "loaded by itself")
        assert "model" not in visit.room.troubles

    run(test, workspace=Workspace(root))


def test_another_model_is_chosen_by_name(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        before = visit.app.asking.status.run
        await visit.press("escape", "m")
        await visit.until(lambda: not isinstance(visit.app.screen, AskRoom))
        await visit.press("down", "enter")
        await visit.until(lambda: visit.app.asking.status.run != before and visit.app.asking.status.state == "ready")

    run(test)


@pytest.mark.parametrize("size", [(80, 24), (160, 48), (200, 60)])
@pytest.mark.parametrize("ascii", [False, True])
def test_every_size_shows_a_result(size: tuple[int, int], ascii: bool, folder: Path) -> None:
    async def test(visit: Visit) -> None:
        await with_images(visit, 2)
        await visit.ask(question())
        await visit.pilot.resize_terminal(20, 5)
        await visit.pilot.resize_terminal(*size)
        await visit.until(lambda: "zero-shot CLIP" in visit.text())
        screen = visit.text()
        assert screen.isascii() or not ascii
        assert ("##" in screen) if ascii else ("█" in screen)

    run(test, size=size, ascii=ascii, color=not ascii)


def test_the_room_paints_without_torch_and_runs_never_loads_it(tmp_path: Path) -> None:
    script = f"""
import asyncio, json, sys
from pathlib import Path
from metavqa_cli.tui.app import make_app
from metavqa_cli.tui.asking import Asking

heavy = lambda: [name for name in ("torch", "numpy", "open_clip", "PIL") if name in sys.modules]
seen = {{}}

class Watching(Asking):
    def load(self, run=None):
        seen["when loading begins"] = (heavy(), bool(app.room._compositor.full_map), app.room.is_current)

async def main():
    async with app.run_test(size=(120, 40)) as pilot:
        while app.room is None or not app.room.settled:
            await asyncio.sleep(0.01)
        seen["runs"] = heavy()
        await pilot.press("f5")
        while "when loading begins" not in seen:
            await asyncio.sleep(0.01)

app = make_app(Path({str(miniature.finished().root)!r}), room="runs", asking=Watching)
asyncio.run(main())
print(json.dumps(seen))
"""
    done = python("-c", script, cwd=tmp_path)
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[-1]) == {"runs": [], "when loading begins": [[], True, True]}


@pytest.mark.parametrize("typed", ["x" * 300, "~nobody-is-called-so/x.safetensors"])
def test_a_path_that_no_file_can_have_is_said(typed: str, folder: Path) -> None:
    async def test(visit: Visit) -> None:
        await visit.ask(question())
        await visit.press("escape", "w")
        await visit.until(lambda: isinstance(visit.app.screen, PathDialog))
        visit.app.screen.query_one(Input).value = typed
        await visit.press("enter")
        await visit.until(lambda: any("no path that can be written" in said for said in visit.said))

    run(test)


def test_a_classifier_is_saved_though_the_model_is_gone(folder: Path, tmp_path: Path) -> None:
    workspace = miniature.copy(tmp_path / "workspace")

    async def test(visit: Visit) -> None:
        await visit.ask(question())
        visit.app.asking.load("ldm-00000000")
        await visit.until(lambda: visit.app.asking.status.state == "failed")
        await visit.press("escape", "w")
        await visit.until(lambda: isinstance(visit.app.screen, PathDialog))
        visit.app.screen.query_one(Input).value = "kept.safetensors"
        await visit.press("enter")
        await visit.until(lambda: any(said.startswith("wrote kept.safetensors") for said in visit.said))

    run(test, workspace=workspace)


def test_this_rooms_model_answers_though_another_room_had_another_loaded(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        mine = visit.app.asking.status.run
        other = next(run.id for run in runs.list_runs(miniature.finished()) if run.kind == "ldm" and run.id != mine)
        await visit.press("f2")
        visit.app.asking.load(other)
        await visit.until(lambda: visit.app.asking.status.run == other)
        await visit.press("f5")
        await visit.until(lambda: isinstance(visit.app.room, AskRoom))
        assert (await visit.ask(question())).run == mine

    run(test)


def test_what_another_room_had_loaded_tells_its_choices_too(folder: Path) -> None:
    async def test() -> None:
        app = make_app(miniature.finished().root, room="runs", look_seconds=0.05)
        async with app.run_test(size=(120, 40)) as pilot:
            visit = Visit(app, pilot)
            app.asking.load()
            await until(pilot, lambda: app.asking.status.state == "ready" and app.snapshot.views)
            app.visit("ask")
            await until(pilot, lambda: isinstance(app.room, AskRoom) and app.room.settled)
            await visit.until(lambda: visit.form.field("sampler").placeholder == "ddim")
            assert visit.room.model == app.asking.status.run

    asyncio.run(test())


def test_a_folder_of_very_many_folders_is_listed_in_part(folder: Path) -> None:
    for number in range(MOST + 5):
        (folder / f"d{number:04d}").mkdir()

    async def test(visit: Visit) -> None:
        root = visit.room.query_one(FileTree).root
        await visit.until(lambda: root.children and "more: type a pattern" in str(root.children[-1].label))
        assert len(root.children) == MOST + 1

    run(test)


def test_nothing_is_settled_before_the_room_has_heard_how_the_model_stands(folder: Path) -> None:
    async def test(visit: Visit) -> None:
        asking = visit.app.asking
        asking._status = Status("failed", None, "no model")  # as its thread sets it, before the message is handled
        assert not visit.room.settled
        asking._tell(Status("ready", visit.room.model))
        await visit.settle()

    run(test)
