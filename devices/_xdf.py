"""XDF (https://github.com/sccn/xdf/wiki/Specifications): its chunks, and the streams that lie in them.

What `record` wrote is read here to the bit, and stays in the file until it is asked for; any other file goes through
pyxdf. Sizes are checked against the file before memory is taken for them.
"""

from __future__ import annotations

import bisect
import functools
import gzip
import io
import json
import logging
import mmap
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pyxdf

from rheobase.devices._check import CHECK, Check, first_damage
from rheobase.devices._tables import SALVAGE, Stream, Times, unzipped
from rheobase.stream.block import Array, Spec, StreamError, numbered

EVENTS = "rheobase"
"""Name of the stream in our own recordings that says where segments start."""
FILE, HEADER, SAMPLES, OFFSET, MARK, FOOTER = 1, 2, 3, 4, 5, 6
"""Tags of XDF's chunks."""
BYTES = {"double64": 8, "float32": 4, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "string": 0}
"""XDF's sample formats and their size (0: any)."""


def xdf(path: Path, salvage: bool) -> dict[str, Stream]:
    try:
        if path.suffix in (".xdfz", ".gz"):
            raw: bytes | mmap.mmap = unzipped(path)
        else:
            with open(path, "rb") as f:
                raw = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise StreamError(f"file: {path}: damaged, nothing in it is readable: {e}") from None
    if raw[:4] != b"XDF:":
        raise StreamError(f"file: {path}: not an XDF file")
    x = Chunks(raw)
    if (start := first_damage(path, raw, x.checks)) >= 0:
        x.cut(start, f"damaged behind byte {start} of {len(raw)}: its checksum is another (`rheo repair` goes on)")
    if not x.heads:
        raise StreamError(f"file: {path}: {x.fault or 'no stream in it'}")
    ours = all(h.find("desc/rheobase/spec") is not None for h in x.heads.values())
    try:
        found = _own(x) if ours else _foreign(x)
    except Exception as e:  # noqa: BLE001 what a damaged file makes pyxdf or a header raise has no end
        raise StreamError(f"file: {path}: damaged: {str(e) or repr(e)}") from None
    if x.fault and not salvage:
        whole = ", ".join(f"{s.n} samples of {k!r}" for k, s in found.items() if k != EVENTS)
        raise StreamError(f"file: {path}: {x.fault}; whole before that: {whole}{SALVAGE}")
    return found


class Chunks:
    """What lies where in an XDF file, up to the first byte that does not belong there. Sizes are checked against
    the file before anything trusts them.

    heads    stream id -> its StreamHeader
    samples  stream id -> (number of samples, where their bytes start, where they end) of each Samples chunk
    checks   checksums
    end      where the last whole chunk ends
    fault    what is wrong there, if the file goes on
    """

    def __init__(self, raw: bytes | mmap.mmap) -> None:
        self.raw = raw
        self.heads: dict[int, ElementTree.Element] = {}
        self.samples: dict[int, list[tuple[int, int, int]]] = {}
        self.sizes: dict[int, tuple[int, int]] = {}
        self.checks: list[Check] = []
        self.end, self.fault = 4, ""
        while self.end < len(raw):
            try:
                self.end = self._chunk(self.end)
            except (IndexError, struct.error):
                self.fault = f"cut short at byte {self.end} of {len(raw)}"
                return
            except (ValueError, KeyError, AttributeError, ElementTree.ParseError) as e:
                self.fault = f"damaged at byte {self.end} of {len(raw)}: {e}"
                return

    def cut(self, at: int, fault: str) -> None:
        """Take nothing from byte `at` on."""
        self.end, self.fault = at, fault
        for key, chunks in self.samples.items():
            self.samples[key] = [c for c in chunks if c[2] <= at]

    def _chunk(self, at: int) -> int:
        start = at
        length, at = self.size(at)
        end = at + length
        (tag,) = struct.unpack_from("<H", self.raw, at)
        if not (1 <= tag <= 6 or tag == CHECK) or length < (6 if tag in (HEADER, SAMPLES, OFFSET, FOOTER) else 2):
            raise ValueError(f"no chunk has tag {tag} and length {length}")
        if end > len(self.raw):
            raise IndexError
        if tag == HEADER:
            (key,) = struct.unpack_from("<I", self.raw, at + 2)
            head = ElementTree.fromstring(self.raw[at + 6 : end].decode(errors="replace"))  # noqa: S314 - expat bounds entities
            c, kind = int(_text(head, "channel_count")), _text(head, "channel_format")
            if kind not in BYTES or not 1 <= c <= 1 << 20:
                raise ValueError(f"a stream of {c} channels of {kind!r}")
            self.heads[key], self.samples[key] = head, []
            # a string takes 2 bytes at least, and as many as there are at most
            self.sizes[key] = c * (BYTES[kind] or 2), c * BYTES[kind] or len(self.raw)
        elif tag == CHECK:
            self.checks.append(Check.unpack(self.raw, start, at + 2, end))
        elif tag == SAMPLES:
            (key,) = struct.unpack_from("<I", self.raw, at + 2)
            if key not in self.heads:
                raise ValueError(f"samples of a stream {key} that has no header")
            n, first = self.size(at + 6)
            least, most = self.sizes[key]
            if not n * (1 + least) <= end - first <= n * (9 + most):
                raise ValueError(f"{n} samples of stream {key} in {end - first} bytes")
            self.samples[key].append((n, first, end))
        return end

    def size(self, at: int) -> tuple[int, int]:
        """A length, and where the bytes after it start."""
        return length(self.raw, at)


def length(raw: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    """A length in 1, 4 or 8 bytes -> the length, and where the bytes after it start. Raises ValueError, IndexError."""
    width = raw[at]
    if width not in (1, 4, 8):
        raise ValueError(f"a length of {width} bytes")
    (n,) = struct.unpack_from({1: "<B", 4: "<I", 8: "<Q"}[width], raw, at + 1)
    return n, at + 1 + width


def _own(x: Chunks) -> dict[str, Stream]:
    """A recording of `record`. Numbers stay in the file until they are asked for."""
    found = {}
    for key, head in x.heads.items():
        spec = msgspec.json.decode(_text(head, "desc/rheobase/spec"), type=Spec)
        chunks = x.samples[key]
        bounds = np.cumsum([0, *(n for n, _, _ in chunks)]).tolist()
        if spec.dtype == "str":
            stream = _in_memory(spec, *_strings(x, chunks, spec.n))
        else:
            row = row_type(spec)
            if any(n * row.itemsize != end - first for n, first, end in chunks):
                raise ValueError(f"samples of {_text(head, 'name')!r} do not fill their chunk")
            read = functools.partial(_rows, x.raw, chunks, bounds, row)
            stream = Stream(spec, bounds[-1], functools.partial(read, "x"), functools.partial(read, "time"))
        stream.starts, stream.exact = [], True
        found[_text(head, "name")] = stream
    events = found[EVENTS]
    for (text,) in events.data(0, events.n):
        e = json.loads(text)
        s = found[e["stream"]]
        if e["index"] < (s.starts[-1][0] if s.starts else 0):
            raise ValueError(f"a segment of {e['stream']!r} starts at sample {e['index']}, before the one before it")
        if e["index"] < s.n:
            s.starts.append((e["index"], e["seq"], e["segment"]))
    return found


def row_type(spec: Spec) -> np.dtype[Any]:
    """One sample of numbers as it lies in a Samples chunk: 8, its time, its channels; nothing between."""
    return np.dtype([("bytes", "u1"), ("time", "<f8"), ("x", np.dtype(spec.dtype).newbyteorder("<"), (spec.n,))])


def _rows(raw: Any, chunks: Any, bounds: list[int], row: np.dtype[Any], part: str, a: int, b: int) -> Array:
    """Samples a to b, or their times, out of the chunks that hold them."""
    parts = []
    k = bisect.bisect_right(bounds, a) - 1
    while k < len(chunks) and bounds[k] < b:
        n, first, _ = chunks[k]
        lo, hi = max(a - bounds[k], 0), min(b - bounds[k], n)
        parts.append(np.frombuffer(raw, row, hi - lo, first + lo * row.itemsize)[part])
        k += 1
    kind = row[part].base.newbyteorder("=")
    return np.concatenate(parts, dtype=kind) if parts else np.empty((0, *row[part].shape), kind)


def _in_memory(spec: Spec, data: Array, times: Times) -> Stream:
    return Stream(spec, len(times), lambda a, b: data[a:b], lambda a, b: times[a:b])


def _strings(x: Chunks, chunks: Sequence[tuple[int, int, int]], c: int) -> tuple[Array, Times]:
    rows: list[list[str]] = []
    times = []
    for n, at, end in chunks:
        for _ in range(n):
            times.append(struct.unpack_from("<d", x.raw, at + 1)[0])
            at += 9
            row = []
            for _ in range(c):
                length, at = x.size(at)
                row.append(x.raw[at : at + length].decode(errors="replace"))
                at += length
            rows.append(row)
        if at != end:
            raise ValueError("strings run over the end of their chunk")
    data = np.empty((len(rows), c), object)
    if rows:
        data[:] = rows
    return data, np.array(times, np.float64)


def _foreign(x: Chunks) -> dict[str, Stream]:
    """Any other XDF file: pyxdf reads the chunks that are whole."""

    class Complaints(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            x.fault = x.fault or f"damaged: {record.getMessage()}"

    log, complaints = logging.getLogger(pyxdf.pyxdf.__name__), Complaints(logging.ERROR)
    log.addHandler(complaints)
    quiet, log.propagate = log.propagate, False
    try:
        got, _ = pyxdf.load_xdf(io.BytesIO(x.raw[: x.end]), dejitter_timestamps=False)
    finally:
        log.removeHandler(complaints)
        log.propagate = quiet
    found: dict[str, Stream] = {}
    for key, g in zip(x.heads, got, strict=True):
        head, info = x.heads[key], g["info"]
        name = _text(head, "name") or f"stream {key}"
        name = f"{name} #{key}" if name in found else name
        c, kind = int(_text(head, "channel_count")), _text(head, "channel_format")
        labels = [_text(ch, "label") for ch in head.findall("desc/channels/channel")]
        units = {_text(ch, "unit") for ch in head.findall("desc/channels/channel")}
        named = len(labels) == c and any(labels)
        channels = tuple(x or y for x, y in zip(labels, numbered("ch", c), strict=True)) if named else numbered("ch", c)
        dtype = {"double64": "float64", "string": "str"}.get(kind, kind)
        spec = Spec(
            rate=float(_text(head, "nominal_srate") or 0),
            channels=channels,
            unit=units.pop() if len(units) == 1 else "",
            dtype=dtype,
        )
        data = np.empty((len(g["time_stamps"]), c), object if dtype == "str" else dtype)
        if len(data):
            data[:] = g["time_series"]
        found[name] = _in_memory(spec, data, np.asarray(g["time_stamps"], np.float64))
        found[name].named = named
        if resets := info["clock_segments"]:
            found[name].starts = [(int(a), int(a), k) for k, (a, _) in enumerate(resets)]
    return found


def _text(head: ElementTree.Element, path: str) -> str:
    return (head.findtext(path) or "").strip()
