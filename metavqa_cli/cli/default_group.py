"""A command group that is a command too: `metavqa eval table …` beside `metavqa eval [RUN…] [OPTIONS]`."""

from collections.abc import Sequence
from typing import Any

from typer.core import TyperGroup

Context = Any  # click's own, or the copy within typer, as typer's version has it
DEFAULT = "(default)"  # no word that anyone types, so it takes no name from the arguments


class DefaultGroup(TyperGroup):
    """Whatever does not begin with the name of a subcommand goes to the command that is registered as ``DEFAULT``.

    That command runs as if it stood in the group's place: same name in usage and errors, same parsing. Register it
    with ``hidden=True`` on a ``Typer(cls=DefaultGroup)``. ``--help`` and completion of the first word show it together
    with the subcommands. An argument that is spelled like a subcommand needs ``--`` before it.
    """

    def make_context(self, info_name: str | None, args: list[str], parent: Context = None, **extra: Any) -> Context:
        """The context of the subcommand that ``args`` name, else directly that of the default command."""
        if args and args[0] in self.commands and args[0] != DEFAULT:
            return super().make_context(info_name, args, parent, **extra)
        default = self.commands[DEFAULT]
        if not args and extra.get("resilient_parsing"):  # completion of the first word
            return self._shown_with(_of_type("option", default)).make_context(info_name, args, parent, **extra)
        if "--help" in args[: args.index("--") if "--" in args else None]:
            return self._shown_with(default.params).make_context(info_name, ["--help"], parent, **extra)
        return default.make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Context) -> Any:
        """Run what ``make_context`` chose, also where nothing stands above this group."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)

    def _shown_with(self, params: Sequence[Any]) -> "_Shown":
        return _Shown(
            name=self.name, commands=dict(self.commands), params=[*params, *self.params], epilog=self.epilog,
            help=self.help or self.commands[DEFAULT].help, rich_markup_mode=self.rich_markup_mode,
        )  # fmt: skip


class _Shown(TyperGroup):
    """The group with the parameters of its default command: to be shown and completed, never run."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        *own, subcommand = super().collect_usage_pieces(ctx)
        return [*own, "|", subcommand]

    def shell_complete(self, ctx: Context, incomplete: str) -> list[Any]:
        found = super().shell_complete(ctx, incomplete)
        arguments = _of_type("argument", self.commands[DEFAULT])
        return found + [item for argument in arguments[:1] for item in argument.shell_complete(ctx, incomplete)]


def _of_type(kind: str, command: Any) -> list[Any]:
    return [param for param in command.params if param.param_type_name == kind]
