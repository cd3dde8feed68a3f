"""`rheo report`: one page on a run, with all that it recorded: its window at the end, every stream over the whole time,
marks, ages, losses, config and versions."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from rheobase.devices.replay import Replay, streams
from rheobase.stream.block import Spec, StreamError
from rheobase.tools.page import Html, closed_loop_page, drawn, table

COLUMNS = 900
"""Columns of lowest and highest value that a stream is drawn in."""
LISTED = 60
"""Words listed, at most: the first and the last."""
DRAWN = 12
"""Streams drawn, at most."""


@dataclass
class Course:
    """A recorded stream over the whole run.

    times      (m,) s, of the columns
    low, high  (m, n) lowest and highest value in each
    words      of a stream of words: (time, word)
    """

    name: str
    spec: Spec
    samples: int
    segments: int
    missing: int
    first: float
    last: float
    times: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    words: list[tuple[float, str]]


def run_page(folder: Path, path: Path | None = None) -> Path:
    """Write it, as RUN/report.html where no path is given. Returns the path. Raises StreamError where it is no run."""
    folder = Path(folder)
    sections: dict[str, Sequence[str]] = {}
    try:
        courses = recorded(folder)
    except StreamError as e:  # the tables are there all the same
        sections["Streams"] = [str(e)]
        courses = []
    if courses:
        t0 = min(c.first for c in courses if c.samples) if any(c.samples for c in courses) else 0.0
        sections["Window at the end"] = [window(folder)]
        sections["Streams"] = [listed(courses, t0), *(figure(c, t0) for c in courses if len(c.times))][: DRAWN + 1]
        sections["Marks"] = [words(c, t0) for c in courses if c.words]
    return closed_loop_page(folder, path, sections)


def recorded(folder: Path) -> list[Course]:
    """Every stream of a run's recording. Raises StreamError."""
    file, _ = of_run(folder)
    return [course(str(file), name) for name in streams(str(file), salvage=True)]


def of_run(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The recording of a run, and what its graph says of its (first) window."""
    try:
        nodes = dict(yaml.safe_load((folder / "config.yaml").read_text())["nodes"])
    except FileNotFoundError:
        raise StreamError(f"{folder}: not a run directory: it has no config.yaml") from None
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as e:
        raise StreamError(f"{folder / 'config.yaml'}: not the config of a run: {e}") from None
    recorder = next((n for n in nodes.values() if n.get("type") == "record"), None)
    if recorder is None:
        raise StreamError(f"{folder}: its graph has no record node, so there is no recording")
    seen = next((dict(n) for n in nodes.values() if n.get("type") == "view"), None)
    given = {k: seen[k] for k in ("panels", "layout", "span", "theme") if k in seen} if seen else {}
    if seen:
        given["of"] = [e if isinstance(e, str) else e["from"] for e in seen["in"]]
    return folder / recorder.get("file", "recording.xdf"), given


def course(file: str, name: str) -> Course:
    """One of them, read block by block."""
    source = Replay(file=file, stream=name, salvage=True)
    spec = source.start()
    [part] = source.parts
    n, text = part.stream.n, spec.dtype == "str"
    first, last = (float(part.times(k, k + 1)[0]) if n else 0.0 for k in (0, max(n - 1, 0)))
    none = np.empty((0, spec.n))
    found = Course(name, spec, n, len(part.starts), 0, first, last, np.empty(0), none, none, [])
    every = max(1, -(-n // COLUMNS))
    times: list[Any] = []
    low: list[Any] = []
    high: list[Any] = []
    rest: list[Any] = []
    for block in source.blocks():
        if text:
            found.words += [(float(t), " ".join(map(str, w))) for t, w in zip(block.times, block.data, strict=True)]
            continue
        x = block.data.astype(float)
        found.missing += int((~np.isfinite(x)).any(axis=1).sum())
        rest.append((block.times, x))
        if sum(len(t) for t, _ in rest) >= every:
            rest = _columns(rest, every, times, low, high)
    if rest and not text:
        _columns(rest, 1 if not times else every, times, low, high, last=True)
    if times:
        found.times, found.low, found.high = np.concatenate(times), np.concatenate(low), np.concatenate(high)
    return found


def _columns(
    rest: list[Any], every: int, times: list[Any], low: list[Any], high: list[Any], last: bool = False
) -> list[Any]:
    """Whole columns of what has been read; returns what is left over."""
    t, x = np.concatenate([t for t, _ in rest]), np.concatenate([x for _, x in rest])
    x[~np.isfinite(x)] = np.nan
    whole = len(t) if last else len(t) // every * every
    starts = np.arange(0, whole, every)
    if len(starts):
        times.append(t[starts])
        low.append(np.fmin.reduceat(x[:whole], starts))
        high.append(np.fmax.reduceat(x[:whole], starts))
    return [(t[whole:], x[whole:])] if whole < len(t) else []


def window(folder: Path) -> Html:
    """What the run's window would show at its end."""
    try:
        from rheobase.tools.look import picture_of
    except (StreamError, ModuleNotFoundError) as e:
        return Html(f"<p>No picture: {e}</p>")
    with tempfile.TemporaryDirectory() as home:
        try:
            picture = picture_of(folder, Path(home) / "window.png").read_bytes()
        except StreamError as e:
            return Html(f"<p>No picture: {e}</p>")
    said = "The window at the end of the recording."
    data = base64.b64encode(picture).decode()
    return Html(
        f'<figure><img alt="{said}" src="data:image/png;base64,{data}"><figcaption>{said}</figcaption></figure>'
    )


def listed(courses: Sequence[Course], t0: float) -> Html:
    """A row a stream."""
    heads = ["stream", "samples", "rate, Hz", "measured, Hz", "channels", "unit", "from, s", "to, s", "segments"]
    rows = []
    for c in courses:
        measured = (c.samples - 1) / (c.last - c.first) if c.spec.rate and c.last > c.first else np.nan
        rate = f"{c.spec.rate:g}" if c.spec.rate else "irregular"
        span = (f"{c.first - t0:.2f}", f"{c.last - t0:.2f}") if c.samples else ("–", "–")
        told = f"{measured:.3f}" if np.isfinite(measured) else "–"
        rows.append([c.name, f"{c.samples:,}", rate, told, c.spec.n, c.spec.unit, *span, c.segments, f"{c.missing:,}"])
    return table([*heads, "with a missing value"], rows, "Times from the first recorded sample.")


def figure(c: Course, t0: float) -> Html:
    what = "its channels" if c.spec.n <= 12 else "each channel a row"
    said = f"{c.name}: {what}, from the lowest to the highest value at each time."
    return drawn("course_of_stream", said, c, t0)


def words(c: Course, t0: float) -> Html:
    """The words of a stream of markers, each at its time."""
    some = c.words if len(c.words) <= LISTED else [*c.words[: LISTED // 2], *c.words[-LISTED // 2 :]]
    left = f" {len(c.words) - len(some)} between them are left out." if len(some) < len(c.words) else ""
    return table(["word", "at, s"], [[w, f"{t - t0:.3f}"] for t, w in some], f"{c.name}: {len(c.words)} words.{left}")
