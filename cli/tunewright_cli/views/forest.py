"""The list of everything as aligned lines, in batches: the first screen does not wait for the thousandth line."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.text import Text

from tunewright_cli.chain.model import State
from tunewright_cli.forest import Row
from tunewright_cli.views.style import STATES, age

_BATCH = 50
_GUIDES = ("", "└─ ", "   └─ ")
_GAP = "  "


def render_forest(
    rows: Sequence[Row], now: datetime, *, width: int, namespaces: bool = False, wide: bool = False
) -> Iterator[Text]:
    """Lines of the list; `width` cuts them (0: not at all), `namespaces` and `wide` add columns."""
    titles = ["NAMESPACE", "  NAME", "STATE", "AGE", "DETAIL", "MESSAGE"][0 if namespaces else 1 : 6 if wide else 5]
    table = [_cells(row, now)[0 if namespaces else 1 : 6 if wide else 5] for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *table, strict=True)]
    yield _cut(Text(_join(titles, widths), style="bold"), width)
    for start in range(0, len(rows), _BATCH):
        batch = zip(rows[start : start + _BATCH], table[start : start + _BATCH], strict=True)
        yield Text("\n").join(_cut(_line(row, cells, widths, namespaces), width) for row, cells in batch)


def count(rows: Sequence[Row]) -> str:
    """`3 objects: 2 Ready, 1 Failed`."""
    states = [(state, sum(row.state is state for row in rows)) for state in State]
    told = ", ".join(f"{number} {state.value}" for state, number in states if number)
    return f"{len(rows)} {'object' if len(rows) == 1 else 'objects'}: {told}"


def _cells(row: Row, now: datetime) -> tuple[str, ...]:
    """Texts of all columns."""
    name = f"{_GUIDES[row.depth]}{STATES[row.state][0]} {row.kind.short}/{row.name}"
    return row.namespace, name, row.state.value, age(row.created, now), row.detail, row.message


def _line(row: Row, cells: Sequence[str], widths: Sequence[int], namespaces: bool) -> Text:
    """The line with the mark and the word of its state in colour."""
    line, colour = Text(_join(cells, widths)), STATES[row.state][1]
    column = 1 if namespaces else 0
    mark = (widths[0] + len(_GAP)) * column + len(_GUIDES[row.depth])
    word = sum(widths[: column + 1]) + len(_GAP) * (column + 1)
    line.stylize(colour, mark, mark + 1)
    line.stylize(colour, word, word + len(row.state.value))
    return line


def _join(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(text.ljust(size) for text, size in zip(cells, widths, strict=True)).rstrip()


def _cut(line: Text, width: int) -> Text:
    if width:
        line.truncate(width, overflow="ellipsis")
    return line
