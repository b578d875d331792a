"""The panes and keys of the room Ask, with what is said about them."""

from textual.binding import Binding, BindingType

from metavqa_cli.tui.room import Pane

WITHOUT_INPUT = frozenset({"change", "desk", "next_list", "proposed", "model", "again", "pictures"})
HELP = (
    "Type a question and press enter: a classifier is generated for it and judges the chosen images. The same "
    "without a dashboard: metavqa ask, metavqa generate; c copies the exact command line."
)
PANES: tuple[Pane, ...] = (
    Pane("ask-question-pane", "Question",
         "Enter asks. Answers and template are proposed from similar training questions until you write your own; "
         "an empty field, or a outside of the fields, gives the proposal back. Empty choices are the run's own. "
         "Escape leaves the fields."),
    Pane("ask-images", "Images",
         "Space chooses images, or all of a folder; d goes from the files to the images of the nearest question "
         "and to the chosen ones; backspace goes to the folder above. A path or pattern can be typed at the top."),
    Pane("ask-results", "Answers",
         "Ranked answers beside zero-shot CLIP's. [ and ] change gamma, { and } the samples, s the sampler: each "
         "asks again and says what changed. p pins a result beside the next ones."),
    Pane("ask-history", "History", "The last results. Enter brings one back, with what was asked."),
)  # fmt: skip
BINDINGS: list[BindingType] = [
    Binding("left_square_bracket", "change('gamma', -1)", "γ", key_display="[ ]"),
    Binding("right_square_bracket", "change('gamma', 1)", "γ up", show=False, key_display="]"),
    Binding("left_curly_bracket", "change('samples', -1)", "Samples", key_display="{ }"),
    Binding("right_curly_bracket", "change('samples', 1)", "More samples", show=False, key_display="}"),
    Binding("s", "change('sampler', 1)", "Sampler"),
    Binding("p", "desk('pin')", "Pin"),
    Binding("w", "desk('save')", "Save"),
    Binding("c", "desk('copy')", "Copy"),
    Binding("d", "next_list", "Images"),
    Binding("a", "proposed", "Proposed answers", show=False),
    Binding("m", "model", "Model"),
    Binding("r", "again", "Load again", show=False),
    Binding("k", "pictures", "Picture renderer", show=False),
    Binding("x", "cancel", "Cancel"),
    Binding("escape", "leave", "Leave"),
]
