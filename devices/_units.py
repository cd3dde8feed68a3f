"""A recording of one unit after the other (engines, say), played side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from rheobase.devices._tables import Stream, Times
from rheobase.stream.block import StreamError
from rheobase.stream.node import nearest


def beside(
    path: Path,
    by: str,
    s: Stream,
    stamps: Callable[[int, int], Times] | None,
    labels: tuple[str, ...],
    columns: list[int],
) -> tuple[Stream, Callable[[int, int], Times], tuple[str, ...], list[int]]:
    """A stream of one unit after the other, all side by side in order of time; `by`, the column of the unit, first.

    labels, columns: of what is taken. Raises StreamError where there is no such column, or no times to sort by.
    """
    if by not in labels:
        raise StreamError(f"by: {path} has no column {by!r}{nearest(by, labels)}")
    if not stamps:
        raise StreamError("times: say which column holds the time, for units side by side are sorted by it")
    t, x, k = stamps(0, s.n), s.data(0, s.n), labels.index(by)
    order = np.argsort(t, kind="stable")
    t, x = t[order], x[order]
    sorted_ = replace(s, data=lambda a, b: x[a:b], starts=[(0, 0, 0)], exact=True)
    columns = [columns[k], *columns[:k], *columns[k + 1 :]]
    return sorted_, lambda a, b: t[a:b], ("unit", *labels[:k], *labels[k + 1 :]), columns
