"""One run whose log is followed for its curves, and what is wrong with it in sentences."""

from collections.abc import Mapping
from dataclasses import replace

from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.store.runs import Run
from metavqa_cli.tui.curve_data import seed_group
from metavqa_cli.tui.feed import Follower
from metavqa_cli.tui.series import Series, Smoother


class FollowedRun:
    """One run that is followed: its curves, their averages as far as they were asked for, and what is wrong with it."""

    def __init__(self, run: Run) -> None:
        self.run, self.follower = run, Follower(run.path)
        self.troubles: tuple[str, ...] = ()
        self.what, self.seed = run.id, None
        self._smoothers: dict[str, Smoother] = {}
        self._group: str | None = None
        self._apart = ""

    @property
    def behind(self) -> bool:
        return self.follower.tail.behind

    def read(self, limit: int | None) -> bool:
        """Read on; whether curves or troubles changed."""
        cuts, before = self.follower.curves.cuts, self.troubles
        changed = self.follower.poll(limit)
        if self.follower.curves.cuts != cuts:
            self._smoothers.clear()
        self.troubles = tuple(self._look())
        return changed or self.troubles != before

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
                self.what, self.seed = f"{kind} {variant or ''}".strip(), config.get("seed")
                self._group = seed_group(kind, variant, manifest["dataset"], config)
            except (MetaVQAError, OSError) as error:
                self._apart = f"run {self.run.id} is shown apart from other seeds: {error}"
        return self._group

    def _look(self) -> list[str]:
        """Sentences on what is wrong, none if nothing is."""
        run, tail = self.run.id, self.follower.tail
        said = [self._apart, tail.trouble or ""]
        if not self.run.path.is_dir():
            known = "it was removed; its curves are as they were last read" if tail.stamp else "there is no such run"
            said.append(f"run {run}: {known}")
        elif tail.stamp and not tail.path.exists():
            said.append(f"run {run}: its log is gone; its curves are as they were last read")
        if tail.restarts:
            said.append(f"run {run}: its log was replaced or cut short, and was read again from the start")
        if tail.damaged:
            lines = "1 damaged line was" if tail.damaged == 1 else f"{tail.damaged} damaged lines were"
            said.append(f"run {run}: {lines} left out of its log")
        return [sentence for sentence in said if sentence]
