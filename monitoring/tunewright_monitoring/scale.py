"""Numbers on an axis: round ones, and how they are written. Pure."""

import math

from tunewright_monitoring.panels import Unit

_TIMES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (0.001, "ms"))
_SIZES = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))


def format_value(value: float, unit: Unit) -> str:
    """A value with three digits and its unit, such as 250 ms, 99.5 %, 1.2 k/s."""
    if unit is Unit.SECONDS:
        size, name = _time(value) if value else (1.0, "s")
        return f"{_digits(value / size)} {name}"
    if unit is Unit.PERCENT:
        return f"{_digits(value)} %"
    if unit is Unit.FRACTION:
        return f"{_digits(value * 100)} %"
    if unit is Unit.SCIENTIFIC:
        return f"{value:.1e}" if value else "0"
    if unit is Unit.BYTES:
        size, name = _binary(value)
        return f"{_digits(value / size)} {name}"
    suffix = "/s" if unit is Unit.PER_SECOND else ""
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{_digits(value / size)} {name}{suffix}"
    return f"{_digits(value)}{' ' if suffix else ''}{suffix}"


def ticks(top: float, unit: Unit, count: int = 4) -> list[float]:
    """At most `count` + 2 numbers from 0 to at least `top` that are round where they are written."""
    size = _time(top)[0] if unit is Unit.SECONDS else _binary(top)[0] if unit is Unit.BYTES else 1.0
    return [size * tick for tick in _round_numbers(top / size, count)]


def _time(seconds: float) -> tuple[float, str]:
    """Size in seconds and name of the unit in which a time is written."""
    return next((one for one in _TIMES if abs(seconds) >= one[0]), _TIMES[-1])


def _binary(size: float) -> tuple[float, str]:
    """Size in bytes and name of the unit in which a size is written."""
    return next((one for one in _SIZES if abs(size) >= one[0]), (1.0, "B"))


def _round_numbers(top: float, count: int) -> list[float]:
    """1, 2 or 5 times a power of ten apart."""
    if top <= 0:
        return [0.0, 1.0]
    raw = top / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    return [step * at for at in range(math.ceil(top / step - 1e-9) + 1)]


def _digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
