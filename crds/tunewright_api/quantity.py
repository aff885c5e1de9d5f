"""Kubernetes quantities as numbers."""

from decimal import Decimal

_SUFFIXES = {
    "m": Decimal("0.001"),
    **{s: Decimal(1000) ** n for n, s in enumerate("kMGTPE", 1)},
    **{s: Decimal(1024) ** n for n, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}


def parse_quantity(quantity: int | str) -> Decimal:
    """A Kubernetes quantity as a number: 500m -> 0.5, 2Gi -> 2147483648.

    Raises:
        decimal.InvalidOperation: It is none.
    """
    text = str(quantity)
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if text.endswith(suffix):
            return Decimal(text.removesuffix(suffix)) * _SUFFIXES[suffix]
    return Decimal(text)
