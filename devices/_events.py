"""Events counted into samples, such as the spikes of sorted units, and the file of a video tracker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rheobase.devices._tables import SALVAGE, Stream, Times, matlab, rate_of, table
from rheobase.stream.block import Array, Spec, StreamError
from rheobase.stream.node import nearest

MOST = 1000
"""Units in one file: more are rather a column of something else."""


def counts(units: dict[str, Times], rate: float) -> Stream:
    """How often each unit fired in each 1/rate s: sample k is of time k / rate and holds the events after (k-1) / rate
    until then, so that no sample knows of what is still to come. From the first event to the last of all units.

    The samples are made as they are read: hours at 1 kHz take no more memory than their events.
    """
    names = tuple(units)
    at = np.concatenate([np.ceil(t * rate - 1e-6) for t in units.values()]).astype(np.int64)
    unit = np.repeat(np.arange(len(names)), [len(t) for t in units.values()])
    order = np.argsort(at, kind="stable")
    at, unit, first = at[order], unit[order], int(at.min())

    def data(a: int, b: int) -> Array:
        x = np.zeros((b - a, len(names)), np.int16)
        inside = slice(*np.searchsorted(at, (first + a, first + b)))
        np.add.at(x, (at[inside] - first - a, unit[inside]), 1)
        return x

    spec = Spec(rate=rate, channels=names, unit="count", dtype="int16")
    return Stream(spec, int(at[-1]) - first + 1, data, lambda a, b: np.arange(first + a, first + b) / rate, exact=True)


def units(path: Path, name: str, times: str, salvage: bool) -> dict[str, Times]:
    """Times of the events of each unit, s, by its name; those without events are left out.

    A table: `name` is the column with the number of the unit, `times` that of the time. A MATLAB file: `name` is the
    array, a nest of cells as deep as it likes ("unit3.2" is cell 2 of cell 3) with a vector of times in each, or
    structs that hold it in the field `times` ("time" where not said).
    """
    if path.suffix.lower() == ".mat":
        found = _cells(path, name, times or "time")
    else:
        found = _column_pair(path, name, times, salvage)
    if not found:
        raise StreamError(f"events: {path}: {name!r} holds no event")
    for unit, t in found.items():
        if not np.isfinite(t).all():
            raise StreamError(f"events: {path}: {unit} holds what is not a time")
    return found


def _cells(path: Path, name: str, field: str) -> dict[str, Times]:
    arrays = matlab(path)
    if name not in arrays:
        raise StreamError(f"events: {path} has no array {name!r}{nearest(name, arrays)}")

    def walk(x: Array, place: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Array]]:
        if x.dtype.names:
            if field not in x.dtype.names:
                raise StreamError(f"times: {path}: {name!r} has no field {field!r}{nearest(field, x.dtype.names)}")
            x = x[field]
        if x.dtype == object:
            for k, inner in enumerate(x.ravel(order="F"), 1):
                yield from walk(inner, (*place, k) if x.size > 1 else place)
        elif x.size:
            yield place, x

    found = {}
    for place, x in walk(arrays[name], ()):
        if x.dtype.kind not in "fiu" or x.size != max(x.shape):
            raise StreamError(f"events: {path}: {name!r} holds {x.dtype} {x.shape}: times of a unit are a vector")
        found["unit" + ".".join(map(str, place))] = x.ravel().astype(np.float64)
    return found


def _column_pair(path: Path, name: str, times: str, salvage: bool) -> dict[str, Times]:
    s = table(path, salvage)[""]
    labels = s.spec.channels if s.named else tuple(map(str, range(s.spec.n)))
    for key, word in (("times", times), ("events", name)):
        if word not in labels:
            raise StreamError(f"{key}: {path} has no column {word!r}{nearest(word, labels)}")
    x = s.data(0, s.n)
    t, unit = (x[:, labels.index(word)] for word in (times, name))
    if (unit != np.round(unit)).any():
        raise StreamError(f"events: {path}: column {name!r} is to hold the number of a unit, and is not whole")
    known = np.unique(unit)
    if len(known) > MOST:
        raise StreamError(f"events: {path}: column {name!r} holds {len(known)} units, more than {MOST}")
    return {f"unit{int(k)}": t[unit == k] for k in known}


END = b"<End settings>\n"


def tracking(path: Path, salvage: bool) -> dict[str, Stream]:
    """Positions of a tracked animal, px, by a Trodes camera (.videoPositionTracking): a header that ends in the types
    of its fields, then a record a frame. (0, 0) says that tracking was lost: NaN. Times are those of the frames, s.
    """
    raw = path.read_bytes()
    header, mark, body = raw.partition(END)
    words = dict(re.findall(rb"^(\w[\w ]*): *(.*?)\s*$", header, re.M)) if mark else {}
    types = {"uint8": "u1", "uint16": "<u2", "uint32": "<u4", "int32": "<i4", "float": "<f4", "double": "<f8"}
    fields = [(n.decode(), t.decode()) for n, t in re.findall(rb"<(\w+) (\w+)>", words.get(b"Fields", b""))]
    names = [n for n, _ in fields[1:]]
    try:
        clock = float(words[b"clockrate"])
        if fields[0][0] != "time" or not names or clock <= 0:
            raise ValueError
        record = np.dtype([(n, types[t]) for n, t in fields])
    except (KeyError, IndexError, ValueError):
        raise StreamError(f"file: {path}: its header is not that of a video tracker") from None
    n, over = divmod(len(body), record.itemsize)
    if over and not salvage:
        raise StreamError(f"file: {path}: cut short; {n} samples before that are whole{SALVAGE}")
    rows = np.frombuffer(body, record, n)
    t = rows["time"] / clock
    x = np.stack([rows[c].astype(np.float64) for c in names], axis=1)
    for k, c in enumerate(names):
        if c[0] == "x" and "y" + c[1:] in names:
            pair = [k, names.index("y" + c[1:])]
            x[np.ix_((x[:, pair] == 0).all(axis=1), pair)] = np.nan
    spec = Spec(rate=rate_of(t), channels=tuple(names), unit="px")
    return {"": Stream(spec, n, lambda a, b: x[a:b].copy(), lambda a, b: t[a:b])}
