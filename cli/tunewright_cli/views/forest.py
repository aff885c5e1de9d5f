"""The list of everything as aligned lines, in batches: the first screen does not wait for the thousandth line."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.text import Text

from tunewright_cli.chain.model import State
from tunewright_cli.forest import Row
from tunewright_cli.views.style import STATES, age

_BATCH = 50
_GUIDES = ("", "└─ ", "   └─ ")


def render_forest(
    rows: Sequence[Row], now: datetime, *, width: int, namespaces: bool = False, wide: bool = False
) -> Iterator[Text]:
    """Lines of the list; `width` cuts them (0: not at all), `namespaces` and `wide` add columns."""
    cells = [_cells(row, now, namespaces, wide) for row in rows]
    titles = [
        *(("NAMESPACE",) if namespaces else ()),
        "  NAME",
        "STATE",
        "AGE",
        "DETAIL",
        *(("MESSAGE",) if wide else ()),
    ]
    widths = [max(map(len, column)) for column in zip(titles, *(cell[0] for cell in cells), strict=True)]
    yield Text(_line(titles, widths, width), style="bold")
    where = widths[0] + 2 if namespaces else 0
    for start in range(0, len(cells), _BATCH):
        batch = Text()
        for line, row, depth in (
            (_line(texts, widths, width), row, depth) for (texts, depth), row in _zip(cells, rows, start)
        ):
            colour = STATES[row.state][1]
            begin = len(batch) + where + depth
            batch.append(line + "\n")
            batch.stylize(colour, begin, begin + 1)
            word = len(batch) - len(line) - 1 + sum(widths[: 2 if namespaces else 1]) + (4 if namespaces else 2)
            batch.stylize(colour, word, word + len(row.state.value))
        batch.right_crop()
        yield batch


def count(rows: Sequence[Row]) -> str:
    """`3 objects: 2 Ready, 1 Failed`."""
    states = [(state, sum(row.state is state for row in rows)) for state in State]
    told = ", ".join(f"{number} {state.value}" for state, number in states if number)
    return f"{len(rows)} {'object' if len(rows) == 1 else 'objects'}: {told}"


def _zip(
    cells: Sequence[tuple[list[str], int]], rows: Sequence[Row], start: int
) -> Iterator[tuple[tuple[list[str], int], Row]]:
    return zip(cells[start : start + _BATCH], rows[start : start + _BATCH], strict=True)


def _cells(row: Row, now: datetime, namespaces: bool, wide: bool) -> tuple[list[str], int]:
    """Texts of the columns, and how far in the mark of the state stands."""
    guide = _GUIDES[row.depth]
    name = f"{guide}{STATES[row.state][0]} {row.kind.short}/{row.name}"
    cells = [name, row.state.value, age(row.created, now), row.detail]
    if wide:
        cells.append(row.message)
    return ([row.namespace, *cells] if namespaces else cells), len(guide)


def _line(texts: Sequence[str], widths: Sequence[int], width: int) -> str:
    line = "  ".join(text.ljust(size) for text, size in zip(texts, widths, strict=True)).rstrip()
    return line if not width or len(line) <= width else line[: width - 1] + "…"
