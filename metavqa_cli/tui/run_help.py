"""What the room Runs says of itself: its purpose, its panes, its keys, and what stands where there is nothing yet."""

from textual.binding import Binding, BindingType

from metavqa_cli.tui.room import Pane

READING = "reading the runs of {} ..."
NOTHING = "no runs in {}: n starts a training, and `metavqa quickstart` makes the first ones"
FILTER_HELP = (
    "Words, field:text, comparisons: kind:ldm accuracy>50 -smoke | state:failed age<2h. Enter keeps the filter, escape "
    "clears it."
)
HELP = (
    "All runs of the workspace, live and finished. Space selects runs for the rooms Curves and Tasks and for the "
    "differences; pinned runs stay on top; marked ones are remembered. The same without a dashboard: metavqa runs "
    "ls | show | diff | rm, and metavqa train."
)
PANES = (
    Pane("runs-list", "Runs", f"One line a run, the newest first. Filter with /. {FILTER_HELP}"),
    Pane("runs-details", "Details", "What the highlighted run is, what it was made from, and what from it."),
    Pane("runs-differences", "Differences", "Where the selected runs differ: configuration, parents, result."),
    Pane(
        "runs-jobs",
        "Jobs",
        "What was started from this dashboard, and how it stands; x stops the newest that runs.",
    ),
)
BINDINGS: list[BindingType] = [
    Binding("slash", "filter", "Filter", key_display="/"),
    Binding("space", "select", "Select"),
    Binding("enter", "open", "Curves"),
    Binding("n", "new", "New"),
    Binding("x", "stop", "Stop"),
    Binding("u", "resume", "Resume"),
    Binding("d", "delete", "Delete"),
    Binding("s", "sort", "Sort"),
    Binding("r", "turn", "Reverse the order", show=False),
    Binding("p", "flag('pinned')", "Pin"),
    Binding("m", "flag('marked')", "Mark"),
    Binding("M", "only_marked", "Only marked runs", show=False),
    Binding("a", "select_all", "Select all that are shown, or none", show=False),
    Binding("c", "copy", "Copy the run's id", show=False),
    Binding("escape", "clear", "Clear filter and selection", show=False),
]
