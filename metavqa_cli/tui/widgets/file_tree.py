"""Folders and image files below a folder, as a tree. Folders are read in threads: a disk may take its time."""

import os
from collections.abc import Container
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from metavqa_cli.store.images import SUFFIXES
from metavqa_cli.tui.beside import beside, post
from metavqa_cli.tui.look import Look

MOST = 1_000  # entries of a folder that are shown: a tree of more is no help


class FileTree(Tree[Path]):
    """Image files to choose with space; ``chosen`` holds those that are marked."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "choose", "Choose"),
        Binding("backspace", "up", "Folder above", show=False),
    ]

    class Chosen(Message):
        """Space was pressed on a file or folder, or enter on a file."""

        def __init__(self, path: Path) -> None:
            super().__init__()
            self.path = path

    class Listed(Message):
        """A folder was read: what is in it, or why it cannot be read."""

        def __init__(self, node: "TreeNode[Path]", folders: list[Path], files: list[Path], wrong: str) -> None:
            super().__init__()
            self.node, self.folders, self.files, self.wrong = node, folders, files, wrong

    def __init__(self, look: Look, chosen: Container[Path], *, id: str | None = None) -> None:
        self.look, self.chosen = look, chosen
        self.folder = Path.cwd()
        self.reading = 0
        super().__init__(self._label(self.folder), self.folder, id=id)
        self.guide_depth = 2

    def on_mount(self) -> None:
        self.root.expand()

    def show_folder(self, folder: Path) -> None:
        """Begin the tree at ``folder``."""
        self.folder = folder
        self.reset(self._label(folder), folder)
        self.root.expand()

    def action_up(self) -> None:
        if self.folder.parent != self.folder:
            self.show_folder(self.folder.parent)

    @property
    def pointed(self) -> Path | None:
        """The file or folder under the cursor."""
        return None if self.cursor_node is None else self.cursor_node.data

    def action_choose(self) -> None:
        if self.pointed is not None:
            self.post_message(self.Chosen(self.pointed))

    def on_tree_node_selected(self, event: "Tree.NodeSelected[Path]") -> None:
        if event.node.data is not None and not event.node.allow_expand:
            self.post_message(self.Chosen(event.node.data))

    def on_tree_node_expanded(self, event: "Tree.NodeExpanded[Path]") -> None:
        node = event.node
        if node.data is not None:
            self.reading += 1
            beside(partial(self._list, node, node.data), "file tree")

    def _list(self, node: "TreeNode[Path]", folder: Path) -> None:
        """In a thread: read ``folder`` anew each time it is opened."""
        try:
            folders, files = list_folder(folder)
            post(self, self.Listed(node, folders, files, ""))
        except Exception as error:
            post(self, self.Listed(node, [], [], f"! {getattr(error, 'strerror', None) or error}"))

    def on_file_tree_listed(self, event: Listed) -> None:
        self.reading -= 1
        node = event.node
        node.remove_children()
        folders = event.folders[:MOST]
        files = event.files[: MOST - len(folders)]
        for folder in folders:
            node.add(self._label(folder), folder)
        for file in files:
            node.add_leaf(self._marked(file), file)
        left = len(event.folders) + len(event.files) - len(folders) - len(files)
        note = event.wrong or (f"{left:,} more: type a pattern" if left > 0 else "")
        if note or not (event.folders or event.files):
            node.add_leaf(Text(self.look.text(note or "no images"), "italic"))

    def _label(self, path: Path) -> Text:
        return Text(self.look.text(path.name or str(path)))

    def _marked(self, file: Path) -> Text:
        mark = self.look.pick("●", "x") if file in self.chosen else " "
        return Text(f"{mark} ").append_text(self._label(file))

    def remark(self) -> None:
        """Bring the marks of what is chosen up to date."""
        waiting = [self.root]
        for node in waiting:
            waiting += node.children
            if node.data is not None and not node.allow_expand and node.label != (label := self._marked(node.data)):
                node.set_label(label)


def list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and image files in ``folder``, by name, without hidden ones. ``OSError`` when it cannot be read."""
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if path.suffix.lower() in SUFFIXES:
                files.append(path)
            elif _is_folder(entry):
                folders.append(path)
    return sorted(folders, key=_by_name), sorted(files, key=_by_name)


def _by_name(path: Path) -> str:
    return path.name.lower()


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False
