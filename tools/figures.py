"""The figures of a page (`page.py`), by matplotlib.

Colours tell nothing alone: a marker, a dash or a place says the same. They are those of Okabe & Ito ("Color universal
design", 2008), which people with any colour vision tell apart; a page has each of them twice, for light and for dark.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from rheobase.nodes.task import ACQUIRED, TIMEOUT, WRONG
from rheobase.stream.swap import Swap
from rheobase.tools.scores import LEVELS, METRICS, Row, Scores
from rheobase.tools.trials import Trial

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, FAINT = "#1b1d1f", "#8b8f94"
VARIABLES = {INK: "--ink", FAINT: "--faint", **{c: f"--c{k}" for k, c in enumerate(COLOURS)}}
"""Colour in a figure -> the variable of the page's style sheet that stands for it."""

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, searchable, read aloud
    "svg.hashsalt": "rheobase",
    "text.parse_math": False,  # a channel may be called $x$
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
MARKS = "osD^vPX*<>hd"
LARGEST = 300_000
"""bytes: an SVG that is larger becomes a PNG."""

OUTCOMES = {ACQUIRED: ("acquired", COLOURS[0], "o", "-"), TIMEOUT: ("timed out", COLOURS[1], "X", "--"),
            WRONG: ("wrong", COLOURS[3], "s", ":")}  # fmt: skip
"""Outcome of a trial -> its name, colour, marker and line."""

SHOWN = 96
"""Trials drawn as paths, at most: the last ones."""

NUMBERED = 20
"""Swaps that have a number, at most."""

WINDOW = 60.0
"""s: the acquisition rate is that of the last minute."""


def inline(make: Callable[[], Figure]) -> str:
    """A figure as an element of a page: SVG in the page's own colours, or a PNG where that would be large."""
    with matplotlib.rc_context(STYLE):
        figure = make()
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        if len(out.getvalue()) > LARGEST:
            out = io.BytesIO()
            figure.savefig(out, format="png", dpi=150, facecolor="white")
            return f'<img alt="" src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}">'
    svg = out.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg, count=2).replace("xlink:href=", "href=")
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    own = hashlib.sha256(svg.encode()).hexdigest()[:8]  # two figures of a page have no id in common
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{own}-", svg)


def png(make: Callable[[], Figure], path: Path) -> None:
    """A figure as a file of its own."""
    with matplotlib.rc_context(STYLE):
        make().savefig(path, dpi=150, facecolor="white")


def decoded(scores: Scores) -> Figure:
    """Truth and decoded over the first minute of the test part, a panel a channel."""
    d = scores.Z.shape[1]
    t = scores.times - scores.times[0]
    shown = t < 60
    figure = Figure(figsize=(9, min(2.0 * d + 0.6, 12)), layout="constrained")
    panels = figure.subplots(d, 1, sharex=True, squeeze=False)[:, 0]
    for c, panel in enumerate(panels):
        panel.plot(t[shown], scores.Z[shown, c], color=INK, lw=1.6, label="truth")
        for k, row in enumerate(r for r in scores.drawn() if len(r.Y) == len(t)):
            first = scores.metrics[0]
            label = f"{row.name} ({METRICS[first][0]} {np.mean(row.scores[first]):.3f})"
            line = ("-", "--", "-.", ":")[k % 4]
            seen = shown & np.isfinite(row.Y[:, c])
            if 2 * seen.sum() > shown.sum():
                seen = shown  # holes stay holes, but not those between the estimates of a chunk
            panel.plot(t[seen], row.Y[seen, c], lw=1.2, ls=line, color=COLOURS[k % len(COLOURS)], label=label)
        panel.set_ylabel(_with(scores.spec.channels[c], scores.spec.unit))
    panels[-1].set_xlabel("test time, s")
    panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    return figure


def errors(scores: Scores) -> Figure:
    """Every decoder's scores: mean, 95 % interval, each seed; dashed: the mean of the training truth."""
    rows = scores.rows[::-1]
    figure = Figure(figsize=(9, 0.28 * len(rows) + 1.0), layout="constrained")
    panels = figure.subplots(1, len(scores.metrics), sharey=True, squeeze=False)[0]
    for panel, metric in zip(panels, scores.metrics, strict=True):
        best = scores.best(rows, metric)
        for y, row in enumerate(rows):
            colour, mark = (COLOURS[1], "D") if row is best else (COLOURS[0], "o")
            if interval := row.interval(metric):
                panel.plot(interval, (y, y), color=colour, lw=2, solid_capstyle="butt")
            panel.plot(row.scores[metric], np.full(len(row.scores[metric]), y), "|", color=colour, ms=8)
            panel.plot(np.mean(row.scores[metric]), y, mark, color=colour, ms=5)
        panel.axvline(scores.floor[metric], color=FAINT, ls="--", lw=1)
        panel.set_xlabel(scores.heading(metric) + (" (more is better)" if METRICS[metric][2] else ""))
        panel.grid(axis="y", color=FAINT, lw=0.5, alpha=0.4)
        panel.set_ylim(-0.7, len(rows) - 0.3)
    panels[0].set_yticks(range(len(rows)), [r.name for r in rows])
    return figure


def reliability(rows: Sequence[Row]) -> Figure:
    """Share of truth within the ellipse of each nominal content; on the diagonal a decoder knows how wrong it is."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    panel = figure.subplots()
    panel.plot((0, 100), (0, 100), color=FAINT, lw=1, ls="--")
    for k, row in enumerate(rows):
        measured = [row.coverage[level] for level in LEVELS]
        colour, mark = COLOURS[k % len(COLOURS)], MARKS[k % len(MARKS)]
        panel.plot(LEVELS, measured, color=colour, marker=mark, ms=4, lw=1, label=row.name)
    panel.set(xlabel="content of the ellipse, nominal, %", ylabel="truth within it, %", xlim=(0, 100), ylim=(0, 100))
    panel.set_aspect("equal")
    panel.text(97, 3, "too sure of itself", ha="right", va="bottom", color=FAINT)
    panel.text(3, 97, "not sure enough", ha="left", va="top", color=FAINT)
    panel.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def trajectories(trials: Sequence[Trial], grid: bool) -> Figure:
    """The way of the cursor in the last trials, one panel an outcome, and their targets."""
    trials = trials[-SHOWN:]
    there = [k for k in OUTCOMES if any(t.outcome == k for t in trials)]
    figure = Figure(figsize=(3.2 * len(there) + 1.2, 4.2), layout="constrained")
    panels = figure.subplots(1, len(there), sharex=True, sharey=True, squeeze=False)[0]
    for k, panel in zip(there, panels, strict=True):
        word, colour, mark, line = OUTCOMES[k]
        own = [t for t in trials if t.outcome == k]
        for x, y, r in {(*t.target.tolist(), t.radius) for t in own}:
            place = (100 * (x - r), 100 * (y - r)) if grid else (100 * x, 100 * y)
            shape = Rectangle(place, 200 * r, 200 * r) if grid else Circle(place, 100 * r)
            shape.set(facecolor=FAINT, edgecolor=INK, alpha=0.25)
            panel.add_patch(shape)
        for t in own:
            panel.plot(*(100 * t.cursor.T), color=colour, lw=0.9, ls=line, alpha=0.8)
            panel.plot(*(100 * t.cursor[-1]), mark, color=colour, ms=3)
        panel.set_title(f"{word}: {len(own)}")
        panel.set_xlabel("x, cm")
        panel.set_aspect("equal")
    panels[0].set_ylabel("y, cm")
    return figure


def course(trials: Sequence[Trial], swaps: Sequence[Swap]) -> Figure:
    """Over the run: targets acquired in the last minute, time to target, path efficiency, assistance, swaps."""
    t0 = float(trials[0].times[0])
    end = np.array([t.times[-1] for t in trials]) - t0
    won = np.array([t.outcome == ACQUIRED for t in trials])
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    rate, seconds, efficiency, assist = figure.subplots(4, 1, sharex=True)
    at = np.linspace(0, end[-1], 400)
    behind = np.clip(at, 1.0, WINDOW)
    count = np.searchsorted(end[won], at, "right") - np.searchsorted(end[won], at - behind, "right")
    steady = at >= min(WINDOW / 4, end[-1] / 2)  # a rate over the first seconds says nothing
    rate.plot(at[steady], (60 * count / behind)[steady], color=COLOURS[0], lw=1.4)
    rate.set_ylabel("targets\na minute")
    rate.set_ylim(bottom=0)
    for k, (word, colour, mark, _) in OUTCOMES.items():
        own = [i for i, t in enumerate(trials) if t.outcome == k]
        if own:
            look: Any = {"color": colour, "marker": mark, "ms": 3.5, "ls": "", "label": word}
            seconds.plot(end[own], [trials[i].seconds for i in own], **look)
            efficiency.plot(end[own], [trials[i].efficiency for i in own], **look)
    seconds.set_ylabel("time of\na trial, s")
    seconds.set_ylim(0, 1.1 * max(t.seconds for t in trials))
    seconds.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=3)
    efficiency.set_ylabel("path\nefficiency")
    efficiency.set_ylim(0, 1.05)
    begin = [t.times[0] - t0 for t in trials]
    assist.step([*begin, end[-1]], [100 * t.assist for t in [*trials, trials[-1]]], where="post", color=COLOURS[2])
    assist.set_ylabel("assistance,\n%")
    assist.set_ylim(-5, 105)
    assist.set_xlabel("time, s")
    few = len(swaps) <= NUMBERED
    for k, s in enumerate(swaps):
        for panel in (rate, seconds, efficiency, assist):
            panel.axvline(s.time - t0, color=COLOURS[4], lw=1 if few else 0.5, ls="-." if few else "-", zorder=0)
        if few:
            rate.annotate(f"{k + 1}", (s.time - t0, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom")
    return figure


def fitts(trials: Sequence[Trial], slope: float | None, intercept: float | None) -> Figure:
    """Movement time against the index of difficulty of the targets acquired, and the line through them."""
    own = [t for t in trials if t.outcome == ACQUIRED and t.moved]
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    panel = figure.subplots()
    panel.plot([t.difficulty for t in own], [t.moving for t in own], "o", color=COLOURS[0], ms=3.5, alpha=0.7)
    if slope is not None and intercept is not None and own:
        ends = np.array([min(t.difficulty for t in own), max(t.difficulty for t in own)])
        panel.plot(ends, intercept + slope * ends, color=COLOURS[1], lw=1.6)
        panel.set_title(f"{intercept:.2f} s + {slope:.2f} s/bit × ID", loc="left")
    panel.set(xlabel="index of difficulty, bit", ylabel="movement time, s")
    panel.set_ylim(bottom=0)
    return figure


def course_of_stream(c: Any, t0: float) -> Figure:
    """A recorded stream over the whole run (`run_page.Course`): up to 12 channels as bands, more as an image."""
    t, n = c.times - t0, c.low.shape[1]
    if n > 12:
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        panel = figure.subplots()
        x = np.where(np.abs(c.low) > np.abs(c.high), c.low, c.high).T
        known = x[np.isfinite(x)]
        low, high = np.percentile(known, [2, 99]) if known.size else (0, 1)
        image = panel.imshow(x, aspect="auto", origin="lower", interpolation="nearest", vmin=low, vmax=max(high, low),
                             extent=(t[0], t[-1] if t[-1] > t[0] else t[0] + 1, -0.5, n - 0.5))  # fmt: skip
        figure.colorbar(image, label=c.spec.unit)
        panel.set_ylabel("channel")
    else:
        figure = Figure(figsize=(9, min(0.9 * n + 0.7, 8)), layout="constrained")
        panels = figure.subplots(n, 1, sharex=True, squeeze=False)[:, 0]
        for k, panel in enumerate(panels):
            low, high = c.low[:, k], c.high[:, k]
            panel.fill_between(t, low, high, color=COLOURS[0], lw=0.8)
            panel.set_ylabel(_with(c.spec.channels[k][:12], c.spec.unit), rotation=0, ha="right", va="center")
        panel = panels[-1]
    panel.set_xlabel("time, s")
    figure.axes[0].set_title(c.name, loc="left")
    return figure


def _with(name: str, unit: str) -> str:
    return f"{name}, {unit}" if unit else name
