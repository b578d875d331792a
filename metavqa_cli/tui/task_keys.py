"""The panes and keys of the room Tasks, with what is said about them."""

from textual.binding import Binding, BindingType

from metavqa_cli.tui.room import Pane
from metavqa_cli.tui.task_list import GRAMMAR

FILTER_HELP = (
    "Words of the question, field:text, comparisons: colour family:count answers>3 accuracy<50 -red | split:test. "
    f"Fields: {', '.join(GRAMMAR.fields)}. Enter keeps the filter, escape clears it."
)
HELP = (
    "The tasks of a dataset: a question with its answers and images. Columns a, b, c are what methods got right of "
    "a task's query pairs, in per cent: those of the runs selected in Runs, or of all evaluations and cells. A "
    "task with few query pairs can be best or worst by luck. The same without a dashboard: metavqa dataset show, "
    "metavqa eval tasks."
)
PANES: tuple[Pane, ...] = (
    Pane("tasks-list", "Tasks", f"One line a task. Filter with /. {FILTER_HELP}"),
    Pane("tasks-details", "Task", "The highlighted task: its answers in the support and the query set, and how "
         "many query pairs each shown method judged rightly."),
    Pane("tasks-images", "Images", "Images of the highlighted task with their answers, support or query. Arrow "
         "keys move, more are read at the end, enter asks about the one under the cursor."),
)  # fmt: skip
LESS_NEEDED = ("sort", "dataset", "pictures")
BINDINGS: list[BindingType] = [
    Binding("slash", "filter", "Filter", key_display="/"),
    Binding("enter", "ask", "Ask"),
    Binding("g", "sweep", "γ sweep"),
    Binding("f", "family", "Family"),
    Binding("v", "split", "Split"),
    Binding("s", "sort", "Sort"),
    Binding("m", "methods", "Methods"),
    Binding("o", "dataset", "Dataset"),
    Binding("k", "pictures", "Pictures"),
    Binding("c", "copy", "Copy the question", show=False),
    Binding("escape", "clear", "Clear filter, family and split", show=False),
]
