"""What the room γ sweep says of itself."""

from textual.binding import Binding, BindingType

from metavqa_cli.tui.room import Pane

HELP = (
    "Accuracy on the test tasks against the guidance scale γ, from finished cells (without any, from the newest "
    "evaluation), and for one task what is answered to its query images at each γ. Controls are left out. The γ "
    "that is used elsewhere was chosen on validation tasks and is starred; whoever picks another off the curve picks "
    "it by the test tasks. The same without a dashboard: metavqa eval sweep, metavqa eval tasks."
)
PANES = (
    Pane("sweep-curves", "Accuracy against γ", "Left and right move the line to the next measured γ of the curve "
         "that is marked (here). The words below say what stands there: mean ± s.d. over the seeds, 95 % interval over "
         "the tasks (of the mean over the seeds), and the difference to Uncond. Multitask, paired task by task."),
    Pane("sweep-tasks", "Tasks", "The test tasks with their accuracy at the line and its change from the γ where "
         "the line was before. / filters by words of the question or family. The best and the worst of many tasks with "
         "few images are so by luck, too."),
    Pane("sweep-answers", "Answers", "What all samples and seeds answered to the task's query images: the most "
         "frequent answer, its share, and what was otherwise at the γ before. Where the right answer and another were "
         "given equally often it is a tie (=), neither right nor wrong."),
    Pane("sweep-pictures", "Pictures", "The query images with what was answered to them. < and > move the line."),
)  # fmt: skip
NOT_SWEPT = (
    "Nothing was measured at several γ on the dataset {!r} yet: n starts a sweep, which fills in here point by point. "
    "Without a dashboard: metavqa eval sweep"
)
BINDINGS: list[BindingType] = [
    Binding("left,comma,less_than_sign", "scrub(-1)", "γ", key_display="←→"),
    Binding("right,full_stop,greater_than_sign", "scrub(1)", "γ up", show=False),
    Binding("up", "task(-1)", "Task", key_display="↑↓"),
    Binding("down", "task(1)", "Next task", show=False),
    Binding("n", "new", "Sweep"),
    Binding("slash", "filter", "Filter", key_display="/"),
    Binding("f", "family(1)", "Family"),
    Binding("F", "family(-1)", "The family before", show=False),
    Binding("m", "methods", "Methods"),
    Binding("b", "band", "Bands"),
    Binding("s", "sort", "Sort"),
    Binding("enter", "ask", "Ask"),
    Binding("l", "live", "Live γ"),
    Binding("d", "descriptors", "Share of the questions that was known", show=False),
    Binding("o", "dataset", "Dataset", show=False),
    Binding("k", "pictures", "Picture renderer", show=False),
    Binding("c", "copy", "Copy the question", show=False),
    Binding("escape", "clear", "Measured γ again; clear filter and family", show=False),
]
