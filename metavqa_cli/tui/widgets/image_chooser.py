"""Which images are judged: chosen in a file tree, in a task of the dataset, or by a path or pattern; with a preview."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import ContentSwitcher, Input, OptionList, Static
from textual.widgets.option_list import Option

from metavqa_cli.engine.contact import pairs_of
from metavqa_cli.store.images import ImageFile
from metavqa_cli.tasks.taskset import Task
from metavqa_cli.tui.asking import sentence
from metavqa_cli.tui.beside import post
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.newest import Newest
from metavqa_cli.tui.pictures import Tile
from metavqa_cli.tui.thumbnails import thumbnails
from metavqa_cli.tui.widgets.file_tree import FileTree
from metavqa_cli.tui.widgets.picture import Picture

TABS = {"files": "files", "dataset": "dataset", "chosen": "chosen"}
MOST_SHOWN = 500  # images of a task, and chosen ones, that are listed


class PathField(Input):
    """A path or pattern of images."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "submit", "Choose")]


class ImageList(OptionList):
    """Images in a list; space marks them."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("space", "select", "Choose")]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, compact=True)
        self.files: list[Path] = []

    @property
    def pointed(self) -> Path | None:
        """The image under the cursor."""
        return None if self.highlighted is None or self.highlighted >= len(self.files) else self.files[self.highlighted]

    def show(self, files: Sequence[Path], lines: Sequence[str], nothing: str) -> None:
        """Show ``files``, each as one of ``lines``; ``nothing`` when there are none. The cursor stays where it was."""
        at = self.highlighted
        self.files = list(files)
        self.set_options([Text(line, no_wrap=True) for line in lines] or [Option(Text(nothing), disabled=True)])
        if files:
            self.highlighted = min(at or 0, len(files) - 1)


class ImageChooser(Vertical):
    """Owns which images are chosen, in the order of choice."""

    class Changed(Message):
        """Other images are chosen now."""

    class Found(Message):
        """What a typed path or pattern, or a folder, stands for; ``wrong`` a sentence when it is nothing."""

        def __init__(self, files: list[Path], wrong: str) -> None:
            super().__init__()
            self.files, self.wrong = files, wrong

    class Previewed(Message):
        """The small picture of a file."""

        def __init__(self, file: Path, tile: Tile) -> None:
            super().__init__()
            self.file, self.tile = file, tile

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, ImageChooser.Previewed)

    def __init__(self, look: Look, *, id: str) -> None:
        super().__init__(id=id)
        self.look = look
        self.chosen: dict[Path, None] = {}
        self.asked_of: Task | None = None
        self.previewed: Path | None = None
        self._wanted: Path | None = None
        self._previews, self._paths = Newest("preview"), Newest("images")

    def compose(self) -> ComposeResult:
        yield PathField(placeholder="path, folder or *.png", id="ask-path", compact=True)
        yield Static(id="ask-tabs")
        with ContentSwitcher(initial="files", id="ask-lists"):
            yield FileTree(self.look, self.chosen, id="files")
            yield ImageList(id="dataset")
            yield ImageList(id="chosen")
        yield Picture(id="ask-picture", classes="hidden")

    def on_mount(self) -> None:
        self.show_task(None, {}, "no dataset is read yet")
        self._show()

    @property
    def waiting(self) -> bool:
        """Whether a folder, a pattern or a preview is being read."""
        return bool(self.query_one(FileTree).reading) or self._paths.busy or self._previews.busy

    @property
    def tab(self) -> str:
        """Which of the three lists is shown."""
        return str(self.query_one(ContentSwitcher).current)

    def next_tab(self, name: str | None = None) -> None:
        """Show another list (the next one), and give it the keyboard."""
        names = list(TABS)
        switcher = self.query_one(ContentSwitcher)
        switcher.current = name or names[(names.index(self.tab) + 1) % len(names)]
        self._show()
        shown = self.query_one(f"#{switcher.current}")
        shown.focus()
        if isinstance(shown, FileTree | ImageList) and shown.pointed is not None:
            self._preview(shown.pointed)

    # What is chosen

    def choose(self, files: Iterable[Path]) -> None:
        """Choose ``files``; if all of them are chosen, none of them."""
        wanted = list(files)
        if wanted and all(file in self.chosen for file in wanted):
            for file in wanted:
                del self.chosen[file]
        else:
            self.chosen.update(dict.fromkeys(wanted))
        self._show()
        self.post_message(self.Changed())

    def set_chosen(self, files: Iterable[Path]) -> None:
        """Choose exactly ``files``."""
        self.chosen.clear()
        self.choose(files)

    def _show(self) -> None:
        """Bring marks, counts and the list of the chosen up to date."""
        line = Text(no_wrap=True, overflow="ellipsis")
        for name, title in TABS.items():
            here = name == self.tab
            line.append(f"[{title}]" if here else f" {title} ", "reverse" if here else "")
        self.query_one("#ask-tabs", Static).update(line.append("  d: next", "dim"))
        self.border_subtitle = f"{len(self.chosen)} chosen"
        self.query_one(FileTree).remark()
        files = list(self.chosen)[:MOST_SHOWN]
        self.query_one("#chosen", ImageList).show(files, [self._line(file) for file in files], "none: space chooses")
        self._show_dataset()

    def _line(self, file: Path, answer: str = "") -> str:
        mark = self.look.pick("●", "x") if file in self.chosen else " "
        return f"{mark} {self.look.text(file.name)}{f'  {self.look.text(answer)}' if answer else ''}"

    @on(FileTree.Chosen)
    def _tree_chose(self, event: FileTree.Chosen) -> None:
        self.find(str(event.path))

    @on(OptionList.OptionSelected)
    def _list_chose(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if isinstance(event.option_list, ImageList) and event.option_list.pointed is not None:
            self.choose([event.option_list.pointed])

    @on(Input.Submitted, "#ask-path")
    def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        self.find(event.value.strip())

    def find(self, argument: str) -> None:
        """Choose the image, the images of a folder, or those that match a pattern: looked up in a thread."""
        self._paths.do(partial(self._find, argument))

    def _find(self, argument: str) -> None:
        from metavqa_cli.clip.images import expand_images

        try:
            post(self, self.Found([file.absolute() for file in expand_images([argument])], ""))
        except Exception as error:  # a pattern or a folder may lead to anything
            post(self, self.Found([], sentence(error)))

    def on_image_chooser_found(self, event: Found) -> None:
        if event.files:
            self.choose(event.files)
            self.query_one("#ask-path", Input).value = ""

    # The dataset

    def show_task(self, task: Task | None, places: Mapping[str, ImageFile], nothing: str) -> None:
        """Offer the query images of ``task``, each with its answer; ``nothing`` says why there are none."""
        self.asked_of, self._nothing = task, nothing
        pairs = [] if task is None else pairs_of(task, places, ("query",))
        self._offered = [
            (pair.place.path.absolute(), pair.answer) for pair in pairs if pair.place and not pair.place.packed
        ]
        if pairs and not self._offered:
            self._nothing = "this dataset's images are packed in an archive; unpack it to judge some of them"
        self._show_dataset()

    def _show_dataset(self) -> None:
        offered = self._offered[:MOST_SHOWN]
        lines = [self._line(file, answer) for file, answer in offered]
        self.query_one("#dataset", ImageList).show([file for file, _ in offered], lines, self._nothing)

    # The preview

    @on(FileTree.NodeHighlighted)
    def _tree_points(self, event: "FileTree.NodeHighlighted[Path]") -> None:
        if event.node.data is not None and not event.node.allow_expand and self.tab == "files":
            self._preview(event.node.data)

    @on(OptionList.OptionHighlighted)
    def _list_points(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        shown = event.option_list
        if isinstance(shown, ImageList) and shown.id == self.tab and shown.pointed is not None:
            self._preview(shown.pointed)

    def _preview(self, file: Path) -> None:
        self._wanted = file
        self._previews.do(partial(self._read_preview, file))

    def _read_preview(self, file: Path) -> None:
        post(self, self.Previewed(file, next(thumbnails([file]))))

    def on_image_chooser_previewed(self, event: Previewed) -> None:
        if event.file == self._wanted:
            self.previewed = event.file
            self.query_one(Picture).remove_class("hidden")
            self.query_one(Picture).show(event.tile.image, event.tile.label, event.tile.missing)
