"""Numbers, times and sizes as people read them."""

import math


def rough_duration(seconds: float) -> str:
    """An estimate: `45 s`, `3.2 min`, `5.1 h`, `12 d`."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 86400:.3g} d"


def clock(seconds: float) -> str:
    """`4:07` or `2:03:09`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(count: float) -> str:
    """Bytes: `61 MiB`, `8.6 GiB`, `1.3 TiB`."""
    for limit, unit, name in ((2**30, 2**20, "MiB"), (2**40, 2**30, "GiB")):
        if count < limit:
            return f"{count / unit:.3g} {name}" if unit > 2**20 else f"{count / unit:.0f} {name}"
    return f"{count / 2**40:.3g} TiB"


def percent(share: float) -> str:
    """`0.4 %`, `37 %`."""
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def decimals(value: float, half_width: float) -> int:
    """Decimals that show two significant digits of the uncertainty, or four of an exact value."""
    if half_width > 0:
        return max(0, 1 - math.floor(math.log10(half_width)))
    if value == 0 or not math.isfinite(value):
        return 0
    return max(0, 3 - math.floor(math.log10(abs(value))))


def exact(value: float) -> str:
    """A number without uncertainty: whole as it is, otherwise four significant digits."""
    if value == round(value):
        return number(value, 0)
    text = number(value, decimals(value, 0))
    return text.rstrip("0").rstrip(".")


def number(value: float, places: int) -> str:
    """A number with thousands separators and a true minus sign."""
    return f"{value:,.{places}f}".replace("-", "−")


def large(value: float) -> str:
    """A count in the unit a reader thinks in: 476.6 M, 12.3 k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:g}"


def short(value: float) -> str:
    """A number on an axis: 20 k rather than 20000."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return f"{value / (1e3 if size == 1e4 else size):g}{unit}"
    return f"{value:g}"


def duration(seconds: float) -> str:
    """Seconds as a reader says them: 41 s, 3 min 20 s, 5 h 12 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
