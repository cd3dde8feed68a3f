"""Which panels there are, which suit a stream, and how a window is laid out, from the few words of a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rheobase.devices._panel import Line, Panel
from rheobase.devices._panel_compare import ComparePanel
from rheobase.devices._panel_connectivity import ConnectivityPanel
from rheobase.devices._panel_cursor import CursorPanel
from rheobase.devices._panel_fleet import FleetPanel
from rheobase.devices._panel_health import HealthPanel
from rheobase.devices._panel_image import ImagePanel
from rheobase.devices._panel_life import LifePanel
from rheobase.devices._panel_numbers import NumbersPanel
from rheobase.devices._panel_path import TURNS, PathPanel
from rheobase.devices._panel_raster import RasterPanel
from rheobase.devices._panel_spectrum import SpectrogramPanel, SpectrumPanel
from rheobase.devices._panel_states import StatesPanel
from rheobase.devices._panel_traces import TracesPanel
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import nearest

PANELS: dict[str, type[Panel]] = {
    "traces": TracesPanel,
    "image": ImagePanel,
    "raster": RasterPanel,
    "spectrum": SpectrumPanel,
    "spectrogram": SpectrogramPanel,
    "cursor": CursorPanel,
    "path": PathPanel,
    "states": StatesPanel,
    "connectivity": ConnectivityPanel,
    "life": LifePanel,
    "fleet": FleetPanel,
    "compare": ComparePanel,
    "numbers": NumbersPanel,
    "health": HealthPanel,
}
NONE = "none"
"""In place of a kind: no panel of its own."""
SQUARE = ("cursor", "path", "connectivity", "fleet")
"""Kinds that stand on the left where nothing says how panels are laid out."""
ASPECTS = ("spectrum", "spectrogram", "connectivity", "health", "numbers")
"""Kinds that do not show the samples themselves over time."""
KEYS: dict[str, Any] = {"kind": str, "of": (str, list), "channels": (str, list), "model": str, "array": str}


def usual(spec: Spec) -> str:
    """The panel that suits a stream where the config does not say."""
    has = set(spec.channels)
    if spec.dtype == "str":
        return "numbers"
    for kind, needs in (
        ("cursor", {"cursor_x", "cursor_y"}),
        ("fleet", {"unit", "rul_5", "rul_50", "rul_95"}),
        ("life", {"rul_5", "rul_50", "rul_95"}),
        ("states", {"p0", "p1"}),
        *(("path", set(names)) for names in TURNS),
        ("path", {"x", "y", "heading"}),
    ):
        if needs <= has:
            return kind
    # Few channels that are no counts may have levels far apart: as lines each has its own.
    if spec.n >= (16 if spec.unit == "count" else 64) and (spec.unit == "count" or 0 < spec.rate <= 200):
        return "image"
    return "traces"


def lines(panels: Mapping[str, Any], inputs: Sequence[str]) -> dict[str, Line]:
    """What a config says of its panels, by name. Raises StreamError with the nearest right word."""
    found = {}
    for name, given in panels.items():
        entry = {"kind": given} if isinstance(given, str) else given
        if not isinstance(entry, dict) or "kind" not in entry:
            raise StreamError(f"panels: {name!r}: write a kind, or {{kind: ..., of: ...}}")
        for key, value in entry.items():
            if key not in KEYS:
                raise StreamError(f"panels: {name!r}: unknown key {key!r}{nearest(str(key), KEYS)}")
            if not isinstance(value, KEYS[key]):
                raise StreamError(f"panels: {name!r}: {key}: cannot be {value!r}")
        kind = entry["kind"]
        if kind not in (*PANELS, NONE):
            raise StreamError(f"panels: {name!r}: no kind {kind!r}{nearest(kind, [*PANELS, NONE])}")
        of = _words(entry.get("of", list(inputs) if kind == "health" and name not in inputs else [name]))
        for source in of:
            if source not in inputs:
                raise StreamError(f"panels: no input {source!r}{nearest(source, inputs)}")
        if kind in PANELS:
            least, most = PANELS[kind].inputs
            if not least <= len(of) <= most:
                many = f"{least}" if least == most else f"{least} to {most}"
                raise StreamError(f"panels: {name!r}: {kind} shows {many} input{'s' * (most > 1)}, got {len(of)}")
        more = {k: entry[k] for k in ("model", "array") if k in entry}
        found[name] = Line(name, kind, of, _words(entry.get("channels", [])), **more)
    return found


def planned(
    given: Mapping[str, Line], inputs: Sequence[str], specs: Sequence[Spec], layout: Sequence[str | Sequence[str]] = ()
) -> list[Line]:
    """All panels: those of the config, and the usual one of each input that none is named after, where no other panel
    shows its samples or the layout names it; traces of as many channels in the same unit lie one over the other.

    Raises StreamError where a panel does not suit its streams.
    """
    by_name = dict(zip(inputs, specs, strict=True))
    wanted = {n for c in layout for n in ([c] if isinstance(c, str) else c)}
    seen = {n for line in given.values() if line.kind not in ASPECTS for n in line.of} - wanted
    found: list[Line] = []
    for name in inputs:
        if name in given:
            found.append(given[name])
            continue
        spec, kind = by_name[name], usual(by_name[name])
        if name in seen:
            continue
        like = [x for x in found if x.kind == kind == "traces" and x.name not in given]
        same = (
            None
            if name in wanted
            else next((x for x in like if _alike(by_name[x.of[0]], spec) and len(x.of) < 6), None)
        )
        if same is None:
            found.append(Line(name, kind, (name,)))
        else:
            same.of = (*same.of, name)
    found += [line for name, line in given.items() if name not in inputs]
    found = [line for line in found if line.kind != NONE]
    for line in found:
        try:
            PANELS[line.kind].suits(line, [by_name[n] for n in line.of])
        except StreamError as e:
            raise StreamError(f"panels: {e}") from None
    return found


def arranged(found: Sequence[Line], layout: Sequence[str | Sequence[str]]) -> list[list[Line]]:
    """Panels in columns. Raises StreamError where the layout names what is not there."""
    by_name = {n: line for line in found if line.kind == "traces" for n in line.of}
    by_name |= {line.name: line for line in found}
    if layout:
        columns = []
        for column in layout:
            names = [column] if isinstance(column, str) else list(column)
            for name in names:
                if name not in by_name:
                    raise StreamError(f"layout: no panel {name!r}{nearest(name, by_name)}")
            columns.append([by_name[n] for n in names])
        return [c for c in columns if c]
    left = [x for x in found if x.kind in SQUARE]
    right = [x for x in found if x.kind not in SQUARE]
    if not left and len(right) > 3:
        half = sum(PANELS[x.kind].stretch for x in right) / 2
        while right and sum(PANELS[x.kind].stretch for x in left) + PANELS[right[0].kind].stretch / 2 <= half:
            left.append(right.pop(0))
    return [c for c in (left, right) if c]


def _alike(a: Spec, b: Spec) -> bool:
    return (a.n, a.unit) == (b.n, b.unit)


def _words(given: str | Sequence[Any]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(str(x) for x in given)
