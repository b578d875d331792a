"""The axes of the curves, as pure functions: ticks and their texts, and the window that zooms and pans."""

import math
from dataclasses import dataclass, replace

DEEPEST_ZOOM = 1e-6  # of the data's width


def nice_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """At most ``count`` (2 or more) multiples of 1, 2 or 5 times a power of ten inside ``[low, high]``, ascending.

    Where floats are too coarse to tell the ends apart the one tick is ``low``; an empty or infinite range has none.
    """
    if not -math.inf < low <= high < math.inf:
        return ()
    width = high / count - low / count  # of a count-th part; the division first, against overflow
    if width <= max(1e-12 * max(abs(low), abs(high)) / count, 1e-290):
        return (float(low),)
    lowest = math.floor(math.log10(width))
    for power, digit in ((lowest + above, digit) for above in range(3) for digit in (1, 2, 5)):
        spacing = digit * 10.0**power
        around = range(math.floor(low / spacing), math.ceil(high / spacing) + 1)
        # Integers divided once: 3 * 0.1 would be 0.30000000000000004.
        ticks = [n * digit * 10 ** max(power, 0) / 10 ** max(-power, 0) for n in around if abs(n * spacing) < math.inf]
        inside = tuple(tick for tick in ticks if low <= tick <= high)
        if len(inside) <= max(count, 2):
            break
    return inside


def log_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """At most ``count`` (2 or more) ticks for an axis of base-10 exponents: whole decades, evenly thinned.

    Where fewer than two decades are in sight the ticks are the exponents of round numbers instead.
    """
    if not -math.inf < low <= high < math.inf:
        return ()
    decades = math.floor(high) - math.ceil(low) + 1
    if decades >= 2:
        stride = -(-decades // max(count, 2))
        return tuple(map(float, range(-(-math.ceil(low) // stride) * stride, math.floor(high) + 1, stride)))
    if max(abs(low), abs(high)) > 300:  # beyond a float's range
        return nice_ticks(low, high, count)
    return tuple(map(math.log10, nice_ticks(10**low, 10**high, count)))


def tick_text(value: float, digits: int = 4) -> str:
    """A number in few characters: ``0.001``, ``0.25``, ``10``, ``1k``, ``2.5M``, ``1e-4``."""
    value = float(f"{value:.{digits}g}")  # first, so that 999,999 becomes 1M and not 1000k
    size = abs(value)
    if not math.isfinite(value) or (size != 0 and not 1e-3 <= size < 1e15):
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}" if power else mantissa
    thousands = 0
    while size >= 1000:
        size, thousands = size / 1000, thousands + 1
    return f"{'-' if value < 0 else ''}{size:.{max(digits, 3)}g}{' kMGT'[thousands].strip()}"


def log_text(exponent: float) -> str:
    """The text of ``10**exponent``, for a tick of a log axis."""
    return tick_text(10.0**exponent) if abs(exponent) < 300 else f"1e{exponent:g}"


@dataclass(frozen=True)
class Window:
    """The part ``start`` to ``stop`` of an axis whose data go from ``first`` to ``last``; never beyond the data."""

    start: float
    stop: float
    first: float
    last: float

    @classmethod
    def over(cls, first: float, last: float) -> "Window":
        """All of the data."""
        return cls(first, last, first, last)

    def zoom(self, factor: float, at: float) -> "Window":
        """``factor`` times closer (farther below 1), with ``at`` staying at its place on the screen."""
        assert factor > 0, f"zoom factor {factor} is not positive"
        width = self.stop - self.start
        least = min(DEEPEST_ZOOM * (self.last - self.first), width)
        kept = max(width / factor, least) / width if width else 1.0
        at = min(max(at, self.start), self.stop)
        return self._clipped(at - (at - self.start) * kept, at + (self.stop - at) * kept)

    def pan(self, share: float) -> "Window":
        """Moved right by ``share`` of the width shown (left if negative), as far as there are data."""
        width = self.stop - self.start
        move = min(max(share * width, self.first - self.start), self.last - self.stop)
        return self._clipped(self.start + move, self.stop + move)

    def grown(self, first: float, last: float) -> "Window":
        """The window on data that now go from ``first`` to ``last``.

        One that showed everything still does; one that showed the newest point follows it; another stays put.
        """
        if (self.start, self.stop) == (self.first, self.last):
            return Window.over(first, last)
        move = last - self.stop if self.stop == self.last else 0.0
        return replace(self, first=first, last=last)._clipped(self.start + move, self.stop + move)

    def _clipped(self, start: float, stop: float) -> "Window":
        start = min(max(start, self.first), self.last)
        return replace(self, start=start, stop=min(max(stop, start), self.last))
