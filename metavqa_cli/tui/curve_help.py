"""What the room Curves says of itself when it is asked."""

from metavqa_cli.tui.room import Pane

HELP = (
    "The training curves of the runs selected in Runs (F2), of the newest run if none is; they move while it trains. "
    "While the picture is paused or zoomed, or has a cursor, a newer run does not take its place: p, 0 and Esc let it. "
    "All charts show the same steps. The same without a dashboard: metavqa runs curves RUN…"
)
PANES = (
    Pane(
        "curves-charts",
        "Charts",
        "A chart for each metric. Every line ends in the mark that the table gives it, and its border tells the values "
        "at the cursor, or the newest ones. y changes the axis of the chart that has the keyboard, Y that of all.",
    ),
    Pane(
        "curves-lines",
        "Lines",
        "The runs that are shown: mark, name, state, step, and the value at the cursor (measured and smoothed) of the "
        "chart that had the keyboard last. With b, runs that differ in nothing but their seed are one line: their mean "
        "with a band from the lowest to the highest, then of a standard deviation to each side; of runs that have even "
        "the seed in common the newest counts. Below stands what is to be noted, a damaged log for instance.",
    ),
)
