"""Times, sizes and counts as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """`45 s`, `3.2 min`, `5.1 h`, `12 d`."""
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
