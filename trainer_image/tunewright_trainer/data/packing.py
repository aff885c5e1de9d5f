"""Several records in one row, kept apart: which go together, where they begin, and what keeps their attention apart.

A record in a packed row computes what it computes alone: its positions count from 0, and its tokens attend to tokens
of the same record only (Krell et al. 2021, arXiv:2107.02027, section 3.2).
"""

from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put each record into the fullest row that has room, the longest first (best-fit decreasing; at most 11/9 of the
    optimal number of rows + 1, Johnson 1973). The same lengths give the same rows.

    Args:
        lengths: Tokens of each record.
        capacity: Tokens of a row; at least the longest record.

    Returns:
        The numbers of the records of each row.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for record in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        fitting = [row for row, left in enumerate(room) if left >= lengths[record]]
        if fitting:
            row = min(fitting, key=lambda candidate: (room[candidate], candidate))
        else:
            row = len(rows)
            rows.append([])
            room.append(capacity)
        rows[row].append(record)
        room[row] -= lengths[record]
    return rows
