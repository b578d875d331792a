"""One run whose log is followed for its curves, and what there is to say of it in sentences."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.store.runs import Run
from metavqa_cli.tui.curve_data import seed_group
from metavqa_cli.tui.feed import Follower
from metavqa_cli.tui.series import Series, Smoother


class FollowedRun:
    """One run that is followed: its curves, their averages as far as they were asked for, and what is to be said of it.

    ``troubles``: what is wrong now; ``notes``: what happened to its log, which is so for good.
    """

    def __init__(self, run: Run, whole: bool = False) -> None:
        self.run, self.follower = run, Follower(run.path, whole)
        self.troubles: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.what, self.seed, self.created = run.id, "", ""
        self._smoothers: dict[str, Smoother] = {}
        self._group: str | None = None
        self.apart = ""
        """Why it cannot be told which runs differ from it only in their seed; empty if it can, or nobody asked."""

    @property
    def behind(self) -> bool:
        return self.follower.tail.behind

    def read(self) -> bool:
        """Read the next slice; whether curves, troubles or notes changed."""
        cuts, before = self.follower.curves.cuts, (self.troubles, self.notes)
        changed = self.follower.poll()
        if self.follower.curves.cuts != cuts:
            self._smoothers.clear()
        self.troubles, self.notes = tuple(self._wrong()), tuple(self._happened())
        return changed or (self.troubles, self.notes) != before

    def series(self, lengths: Mapping[str, int] | None) -> dict[str, Series]:
        """The curves that have points; with ``lengths``, what they were when they had so many points."""
        curves = {name: curve for name, curve in self.follower.curves.series.items() if len(curve)}
        if lengths is None:
            return curves
        return {
            name: Series(name, curve.steps[: lengths[name]], curve.values[: lengths[name]])
            for name, curve in curves.items() if lengths.get(name)
        }  # fmt: skip

    def lengths(self) -> dict[str, int]:
        return {name: len(curve) for name, curve in self.follower.curves.series.items()}

    def smoothed(self, series: Series, weight: float) -> Series:
        """The averages of a curve: only those of new points are worked out."""
        if weight == 0:
            return series
        smoother = self._smoothers.get(series.name)
        if smoother is None or smoother.weight != weight:
            smoother = self._smoothers[series.name] = Smoother(weight)
        smoother.extend(series.values[len(smoother.values) :])
        return replace(series, values=smoother.values[: len(series)])

    def group(self) -> str:
        """What it has in common with runs that differ only in their seed; its own id if that cannot be read."""
        if self._group is None:
            self._group = self.run.id
            try:
                manifest, config = self.run.manifest(), self.run.config()
                kind, variant = str(manifest["kind"]), manifest.get("variant")
                self._group = seed_group(
                    kind, variant, manifest["dataset"], {**config, "overrides": self.run.overrides()}
                )
                self.what, self.seed = f"{kind} {variant or ''}".strip(), str(config.get("seed"))
                self.created = str(manifest["created"])
            except (MetaVQAError, OSError) as error:
                self.apart = f"run {self.run.id} is shown apart from other seeds: {error}"
            except Exception:  # whatever its files hold (a nest too deep, a number too long), the others are drawn
                self.apart = (
                    f"run {self.run.id} is shown apart from other seeds: its run.json or config.toml holds what no run "
                    f"writes; remove it with `metavqa runs rm {self.run.id}` and make it again"
                )
        return self._group

    def _wrong(self) -> Iterable[str]:
        """Sentences on what is wrong now."""
        run, tail = self.run.id, self.follower.tail
        if tail.trouble:
            yield tail.trouble
        elif not self.run.path.is_dir():
            known = "it was removed; its curves are as they were last read" if tail.stamp else "there is no such run"
            yield f"run {run}: {known}"
        elif tail.stamp and not tail.path.exists():
            yield f"run {run}: its log is gone; its curves are as they were last read"

    def _happened(self) -> Iterable[str]:
        """Sentences on what was met in its log."""
        run, tail = self.run.id, self.follower.tail
        if tail.restarts:
            yield f"run {run}: its log was replaced or cut short, and was read again from the start"
        if (stride := self.follower.stride) > 1:
            yield (f"run {run}: its log is long, so that one logged step in {stride} is drawn; "
                   "`metavqa runs curves --all` gives every one")  # fmt: skip
        if tail.damaged:
            lines = "1 damaged line was" if tail.damaged == 1 else f"{tail.damaged:,} damaged lines were"
            yield f"run {run}: {lines} left out of its log"


def one_of_each_seed(runs: Sequence[FollowedRun]) -> tuple[list[FollowedRun], list[str]]:
    """The newest of the runs of each seed, in the order given, and a sentence on each of the others.

    One that has measured nothing yet does not count as newest. ``runs`` differ in nothing but their seed.
    """
    by_age = sorted(runs, key=lambda run: (any(run.lengths().values()), run.created, run.run.id))
    newest = {run.seed: run for run in by_age}
    said = [
        f"run {run.run.id} is left out: {newest[run.seed].run.id} has the same configuration and seed, and is newer"
        for run in runs if newest[run.seed] is not run
    ]  # fmt: skip
    return [run for run in runs if newest[run.seed] is run], said
