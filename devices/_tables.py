"""Streams in arrays and tables: npy, npz, MATLAB, CSV. Nothing is unpickled."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Array, Spec, StreamError, numbered
from rheobase.stream.node import nearest

Times = NDArray[np.float64]
LARGEST = 1 << 32
"""Bytes that a packed file may unpack to."""
SALVAGE = " (`salvage: true` takes them)"


@dataclass
class Stream:
    """One stream of a file, whatever its format. `data` and `times` read samples a to b; no `times`: it has none."""

    spec: Spec
    n: int
    data: Callable[[int, int], Array]
    times: Callable[[int, int], Times] | None = None
    starts: list[tuple[int, int, int]] = field(default_factory=lambda: [(0, 0, 0)])
    """(index, seq, segment) where a segment starts or samples are missing, as the file says."""
    exact: bool = False
    """The file's word on segments is all there is: no gaps to look for in the times."""
    named: bool = True
    """Its channels have names of their own."""


WIDER = {"b1": "int8", "u1": "int16", "u2": "int32", "u4": "int64", "f2": "float32", "f16": "float64"}
"""Where samples go whose type no edge carries."""


def unzipped(path: Path) -> bytes:
    """What a gzip file holds. Raises ValueError where that is more than `LARGEST` bytes: a small file may say so."""
    with gzip.open(path) as f:
        raw = f.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise ValueError(f"it holds more than {LARGEST >> 20} MiB: unpack it first")
    return raw


def _array(path: Path, name: str, x: Array) -> Stream:
    """An array (n, c) or (n,) as a stream; one of (recordings, n, c) as one stream of a segment each."""
    where = f"file: {path}" + (f": {name!r}" if name else "")
    if x.ndim not in (1, 2, 3) or (x.ndim > 1 and not x.shape[-1]):
        raise StreamError(f"{where} has shape {x.shape}: a stream is (samples, channels)")
    starts = [(0, 0, 0)]
    if x.ndim == 3:
        starts = [(k * x.shape[1], k * x.shape[1], k) for k in range(len(x))] if x.shape[1] else starts
        x = x.reshape(-1, x.shape[2])
    x = x[:, None] if x.ndim == 1 else x
    dtype = "str" if x.dtype.kind in "US" else WIDER.get(x.dtype.str[1:], x.dtype.name)
    try:
        spec = Spec(rate=0, channels=numbered("ch", x.shape[1]), dtype=dtype)
    except StreamError:
        raise StreamError(f"{where} is {x.dtype}: a stream is of numbers or strings") from None
    to = np.dtype(object if dtype == "str" else dtype)
    if x.dtype.kind == "S":
        x = np.char.decode(x, "utf-8", "replace")
    return Stream(spec, len(x), lambda a, b: x[a:b].astype(to), starts=starts or [(0, 0, 0)], named=False)


def npy(path: Path, salvage: bool) -> dict[str, Stream]:
    try:
        x = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as e:
        x, why = _cut_npy(path)
        if x is None:
            raise StreamError(f"file: {path}: damaged: {why or e}") from None
        if not salvage:
            raise StreamError(f"file: {path}: {why}; {len(x)} samples are whole{SALVAGE}") from None
    return {"": _array(path, "", x)}


def _cut_npy(path: Path) -> tuple[Array | None, str]:
    """The whole rows of an npy that was cut short."""
    try:
        with open(path, "rb") as f:
            major, _ = np.lib.format.read_magic(f)
            header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = header(f)
            row = math.prod(shape[1:]) * dtype.itemsize
            left = path.stat().st_size - f.tell()
            if dtype.hasobject or fortran or not shape or not row or left < row:
                return None, "it holds Python objects (pickle), which are never loaded" if dtype.hasobject else ""
            x = np.memmap(path, dtype, "r", f.tell(), (left // row, *shape[1:]))
            return x, f"cut short after {left // row} of {shape[0]} rows"
    except (ValueError, EOFError, OverflowError):
        return None, "it is not an npy file"


def npz(path: Path, salvage: bool) -> dict[str, Stream]:
    found, damaged = {}, {}
    try:
        f = np.load(path, allow_pickle=False)
        if isinstance(f, np.ndarray):
            raise ValueError("it is not an npz file")
        with f:
            for name in f.files:
                try:
                    _bound(f, name)
                    found[name] = f[name]
                except Exception as e:  # noqa: BLE001 what a damaged member makes zipfile raise has no end
                    damaged[name] = str(e)
    except (ValueError, EOFError, NotImplementedError, zipfile.BadZipFile) as e:
        raise StreamError(f"file: {path}: damaged, nothing in it is readable: {e}") from None
    if damaged and not salvage:
        name, why = next(iter(damaged.items()))
        whole = ", ".join(f"{len(x)} samples of {k!r}" for k, x in found.items() if x.ndim) or "nothing"
        raise StreamError(f"file: {path}: {name!r} is damaged ({why}); whole: {whole}{SALVAGE}")
    return _several(path, found)


def _bound(f: np.lib.npyio.NpzFile, name: str) -> None:
    """An array must be as large as its member of the file, before memory is taken for it."""
    assert f.zip is not None
    member = f.zip.NameToInfo.get(f"{name}.npy") or f.zip.getinfo(name)
    with f.zip.open(member) as file:
        major, _ = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        size = math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and not 0 <= size <= min(LARGEST, member.file_size - file.tell()):
            raise ValueError(f"an array of {size} bytes in {member.file_size}")


def mat(path: Path, salvage: bool) -> dict[str, Stream]:
    return _several(path, matlab(path))


def matlab(path: Path) -> dict[str, Array]:
    """Every array of a MATLAB file."""
    raw = io.BytesIO(path.read_bytes())
    try:
        import scipy.io

        found = scipy.io.loadmat(raw)
    except NotImplementedError:
        raise StreamError(f"file: {path}: a MATLAB 7.3 file; save it with -v7 in MATLAB") from None
    except Exception as e:  # noqa: BLE001 what a damaged file makes loadmat raise has no end
        raise StreamError(f"file: {path}: damaged: {e}") from None
    return {k: v for k, v in found.items() if not k.startswith("__")}


def _several(path: Path, found: dict[str, Array]) -> dict[str, Stream]:
    """Those of several arrays that can be a stream."""
    able = {}
    for name, x in found.items():
        try:
            able[name] = _array(path, name, x)
        except StreamError as e:
            why = e
    if not able and found:
        raise why
    if not able:
        raise StreamError(f"file: {path}: nothing in it")
    return able


def table(path: Path, salvage: bool) -> dict[str, Stream]:
    """A table of numbers, one sample a line, with or without a line of names; an empty cell is a missing value."""
    lines, fault = [], ""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as f:
            size = 0
            for line in f:
                size += len(line)
                if size > LARGEST:
                    raise EOFError(f"more than {LARGEST >> 20} MiB")
                lines.append(line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        fault = f"damaged: {e}"
    try:
        text = [line.strip() for line in b"".join(lines).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as e:
        raise StreamError(f"file: {path}: not a text: {e}") from None
    numbers = [k for k, line in enumerate(text, 1) if line and not line.startswith("#")]
    rows = [text[k - 1] for k in numbers]
    if not rows:
        raise StreamError(f"file: {path}: {fault or 'nothing in it'}")
    mark = next((m for m in ",;\t" if m in rows[0]), None)
    first = next(csv.reader(rows[:1], delimiter=mark)) if mark else rows[0].split()
    names = () if all(_number(c) is not None for c in first) else tuple(c.strip() for c in first)
    if names:
        del rows[0], numbers[0]
    try:
        if not rows:
            x = np.empty((0, len(first)))
        else:
            x = np.loadtxt(rows, delimiter=mark, ndmin=2, comments=None, quotechar='"')
        if x.shape[1] != len(first):
            raise ValueError
    except ValueError:
        x, why = _cells(rows, numbers, mark, names or first)
        fault = why or fault
    if fault and not salvage:
        raise StreamError(f"file: {path}: {fault}; {len(x)} samples before that are whole{SALVAGE}")
    s = _array(path, "", x)
    if names:
        s.spec, s.named = s.spec.replace(channels=names), True
    return {"": s}


def _cells(rows: list[str], numbers: list[int], mark: str | None, names: Sequence[str]) -> tuple[Array, str]:
    """Cell by cell: for empty cells, and to say where the first bad one is."""
    x = np.empty((len(rows), len(names)))
    for k, row in enumerate(rows):
        cells = next(csv.reader([row], delimiter=mark)) if mark else row.split()
        if len(cells) != len(names):
            return x[:k], f"line {numbers[k]} has {len(cells)} columns where the first has {len(names)}"
        for j, cell in enumerate(cells):
            value = _number(cell)
            if value is None:
                return x[:k], f"line {numbers[k]}, column {names[j]!r}: {cell.strip()!r} is not a number"
            x[k, j] = value
    return x, ""


def _number(cell: str) -> float | None:
    try:
        return float(cell) if cell.strip() else np.nan
    except ValueError:
        return None


def column_of(s: Stream, name: str) -> int:
    """Which column has this name, or this number where columns have no names; -1: none."""
    if s.named and name in s.spec.channels:
        return s.spec.channels.index(name)
    return int(name) if not s.named and name.isdecimal() and int(name) < s.spec.n else -1


def stamps_of(path: Path, name: str, t: Array, n: int) -> Callable[[int, int], Times]:
    """Times of n samples from an array of them."""
    if t.size != n:
        raise StreamError(f"times: {name!r} of {path} has shape {t.shape} for {n} samples")
    if t.dtype == object or not np.isfinite(t).all():
        raise StreamError(f"times: {name!r} of {path} holds what is not a time")
    t = t.ravel().astype(np.float64)
    return lambda a, b: t[a:b]


def named_rate(path: Path, found: dict[str, Stream], name: str) -> float:
    """The one number that an array of the file holds."""
    if name not in found:
        raise StreamError(f"rate: {path} has no {name!r}{nearest(name, (k for k in found if k))}")
    s = found[name]
    value = float(s.data(0, 1)[0, 0]) if (s.n, s.spec.n, s.spec.dtype) == (1, 1, "float64") else np.nan
    if not value > 0:
        raise StreamError(f"rate: {name!r} of {path} is not one rate in Hz")
    return value


def without(path: Path, s: Stream, value: float) -> Stream:
    """A stream where that value is missing."""
    if s.spec.dtype == "str":
        raise StreamError(f"missing: {path} is text")

    def data(a: int, b: int) -> Array:
        x = s.data(a, b).astype(np.float64)
        return np.where(x == value, np.nan, x)

    return replace(s, spec=s.spec.replace(dtype="float64"), data=data)


def rate_of(t: Times) -> float:
    """Rate of regular times, Hz, to 6 digits: nine in ten intervals within half of the median. 0: irregular."""
    step = np.diff(t)
    if len(step) < 2 or (median := float(np.median(step))) <= 0:
        return 0.0
    near = np.mean(np.abs(step - median) <= median / 2)
    return float(f"{1 / median:.6g}") if near >= 0.9 else 0.0
