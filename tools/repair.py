"""`rheo repair`: what is whole of a recording that was cut short or damaged, as a recording again.

What was written at once (`Record.flush`) is taken where its checksum holds, before and behind damage. Where samples
are missing a segment starts, as it would have live. Recordings of other programs have no checksums: of them, what a
reader can follow is taken.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from xml.etree import ElementTree

import rich.console
import rich.table

from rheobase.devices._check import CHECK, Check
from rheobase.devices._xdf import EVENTS, FOOTER, HEADER, MARK, SAMPLES, length
from rheobase.devices.record import BOUNDARY, _chunk, _size
from rheobase.stream.block import StreamError

MARKED = _chunk(MARK, BOUNDARY)


class Part(NamedTuple):
    """Chunks that were written at once: (tag, where the chunk starts, where its content does, where it ends)."""

    chunks: list[tuple[int, int, int, int]]
    check: Check | None


def repair(path: Path, to: Path | None, console: rich.console.Console) -> int:
    """Write what is whole to `to` (default: NAME-repaired.xdf). Returns the exit code: 0, also where all was whole.

    It is written beside, as NAME.part, and has its name once it is whole.

    Raises StreamError where there is nothing to take, where it cannot be written (a full disk), and where `to` exists:
    nothing is overwritten.
    """
    to = to or path.with_stem(f"{path.stem}-repaired")
    if to.exists():
        raise StreamError(f"{to}: exists already, and nothing is overwritten")
    if not path.is_file():
        raise StreamError(f"{path}: no such file")
    if not path.stat().st_size:
        raise StreamError(f"{path}: is empty")
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        if raw[:4] != b"XDF:":
            raise StreamError(f"{path}: not an XDF file")
        parts = list(_parts(raw))
        beside = to.with_name(f"{to.name}.part")
        try:
            with open(beside, "wb") as out:
                out.write(b"XDF:")
                written = _Writer(raw, out)
                for part in parts:
                    written.take(part)
            if not written.heads:
                raise StreamError(f"{path}: the headers of its streams are damaged: nothing can be told apart")
            beside.rename(to)
        except OSError as e:
            raise StreamError(f"{to}: {e.strerror}: nothing is written") from None
        finally:
            beside.unlink(missing_ok=True)
        size, left = len(raw), len(raw) - 4 - sum(c[3] - c[1] for p in parts for c in p.chunks)
        left -= sum(len(_chunk(CHECK, p.check.pack())) for p in parts if p.check)
    table = rich.table.Table("stream", "samples kept", "samples lost", title=str(to))
    for key, head in written.heads.items():
        name = head.findtext("name") or str(key)
        if name != EVENTS:
            table.add_row(name, str(written.kept[key]), str(written.lost[key]) if written.own else "?")
    console.print(table)
    console.print(f"{left} of {size} bytes were not taken", highlight=False)
    return 0


def _parts(raw: mmap.mmap) -> Iterator[Part]:
    """What was written at once and is whole; damage ends at the next boundary."""
    at = start = 4
    checked = False
    chunks: list[tuple[int, int, int, int]] = []
    while at < len(raw):
        try:
            size, content = length(raw, at)
            end = content + size
            (tag,) = struct.unpack_from("<H", raw, content)
            if end > len(raw) or size < 2 or not (1 <= tag <= 6 or tag == CHECK):
                raise ValueError
            if tag == CHECK:
                check = Check.unpack(raw, at, content + 2, end)
                if check.end - check.start != at - (0 if start == 4 else start) or not check.holds(raw):
                    raise ValueError
                yield Part(chunks, check)
                at, start, chunks, checked = end, end, [], True
                continue
            chunks.append((tag, at, content + 2, end))
            at = end
        except (ValueError, IndexError, struct.error):
            if not checked:  # nothing says that these are not what they were
                yield Part(chunks, None)
                chunks = []
            follows = raw.find(MARKED, start + 1)
            if follows < 0:
                break
            at, start, chunks = follows, follows, []
    if not checked:
        yield Part(chunks, None)


class _Writer:
    """The new file. Events are written anew, since what they count has changed."""

    def __init__(self, raw: mmap.mmap, file: BinaryIO) -> None:
        self.raw, self.file, self.out = raw, file, bytearray()
        self.heads: dict[int, ElementTree.Element] = {}
        self.kept: dict[int, int] = {}
        self.lost: dict[int, int] = {}
        self.holes: dict[int, int] = {}
        self.last: dict[int, tuple[int, int]] = {}

    @property
    def own(self) -> bool:
        return bool(self.heads) and all(h.find("desc/rheobase/spec") is not None for h in self.heads.values())

    @property
    def names(self) -> dict[str, int]:
        return {h.findtext("name") or "": k for k, h in self.heads.items()}

    def take(self, part: Part) -> None:
        """Append it, and say where samples are missing before it."""
        samples: list[tuple[int, int, int, int]] = []
        events: list[dict[str, Any]] = []
        for tag, at, content, end in part.chunks:
            if tag in (HEADER, SAMPLES):
                (key,) = struct.unpack_from("<I", self.raw, content)
            if tag == HEADER:
                try:
                    self.heads[key] = ElementTree.fromstring(self.raw[content + 4 : end].decode(errors="replace"))  # noqa: S314 - expat bounds entities
                except ElementTree.ParseError:
                    continue
                self.kept[key] = self.lost[key] = self.holes[key] = 0
                self.last[key] = (0, 0)
            if tag == SAMPLES and part.check is None and self.own:
                continue  # ours have a checksum, so it is damaged
            if tag == SAMPLES and key in self.heads:
                n, first = length(self.raw, content + 4)
                if self.own and key == self.names.get(EVENTS):
                    events += self._events(n, first)
                else:
                    samples.append((key, n, at, end))
            elif tag != FOOTER and tag != SAMPLES:
                self.out += self.raw[at:end]
        if self.own:
            self._renumber(samples, events, part.check)
        for key, n, at, end in samples:
            self.out += self.raw[at:end]
            self.kept[key] += n
        if self.own and part.chunks:
            data = bytes(self.out) if self.file.tell() > 4 else b"XDF:" + self.out  # its first checksum is of that, too
            totals = tuple((self.kept[k], *self.last[k]) for k in self.heads)
            self.out += _chunk(CHECK, Check.of(data, totals).pack())
        self.file.write(self.out)
        self.out.clear()

    def _events(self, n: int, at: int) -> list[dict[str, Any]]:
        found = []
        for _ in range(n):
            (t,) = struct.unpack_from("<d", self.raw, at + 1)
            size, at = length(self.raw, at + 9)
            found.append(json.loads(self.raw[at : at + size]) | {"t": t})
            at += size
        return found

    def _renumber(
        self, samples: list[tuple[int, int, int, int]], events: list[dict[str, Any]], check: Check | None
    ) -> None:
        """Write the events of a part, their counts less what was lost, and one more where samples are missing."""
        rows: list[tuple[float, dict[str, Any]]] = []
        for order, key in enumerate(self.heads):
            name = self.heads[key].findtext("name") or ""
            n = sum(s[1] for s in samples if s[0] == key)
            mine = [e for e in events if e["stream"] == name]
            before = self.kept[key] + self.lost[key]
            seq, segment = self.last[key]
            if check is not None and name != EVENTS:
                total, after, now = check.totals[order]
                missing = total - n - before
                if missing > 0 and n:
                    self.lost[key] += missing
                    self.holes[key] += 1
                    before += missing
                    if not mine or mine[0]["index"] > before:
                        seq, segment = (seq + missing, segment) if mine else (after - n, now)
                        first = next(s for s in samples if s[0] == key)
                        rows.append((self._time(first[2]), {"index": self.kept[key], "seq": seq, "segment": segment}))
                        rows[-1][1].update(stream=name, hole=self.holes[key])
                self.last[key] = (max(after, 0), max(now, 0))  # -1: nothing has come yet
            for e in mine:
                index = e["index"] - self.lost[key]
                rows.append((e["t"], {**e, "index": index, "hole": self.holes[key]}))
        if not rows:
            return
        rows.sort(key=lambda r: (r[1]["stream"], r[1]["index"]))
        key = self.names[EVENTS]
        body = bytearray()
        for t, e in rows:
            said = {"stream": e["stream"], "index": e["index"], "seq": e["seq"], "segment": e["segment"] + e["hole"]}
            text = json.dumps(said).encode()
            body += struct.pack("<Bd", 8, t) + _size(len(text)) + text
        self.out += _chunk(SAMPLES, struct.pack("<I", key), _size(len(rows)), body)
        self.kept[key] += len(rows)

    def _time(self, at: int) -> float:
        """Of the first sample of a chunk."""
        _, content = length(self.raw, at)
        _, first = length(self.raw, content + 6)
        return float(struct.unpack_from("<d", self.raw, first + 1)[0])
