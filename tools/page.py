"""One HTML page that says how a run or an evaluation went: all in one file, nothing loaded from elsewhere, no script.

    page("page.html", "title", {"Section": ["a paragraph", table([...], [...]), drawn("errors", "caption", scores)]})

What is not `Html` is escaped, for names come from files and streams that anybody may have written.
"""

from __future__ import annotations

import html
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rheobase.stream.block import StreamError
from rheobase.stream.files import versions
from rheobase.stream.swap import Swap, swaps
from rheobase.tools.scores import BLOCK, LEVELS, TOLD, Row, Scores
from rheobase.tools.trials import LINES, Trial, recorded, summary

STYLE = """
:root { --paper: #fff; --ink: #1b1d1f; --faint: #6d7278; --line: #d8dadd; --band: #f4f5f6;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b8588f; --c4: #c98a00; --c5: #3a9ad4; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #16181a; --ink: #e6e7e8; --faint: #989da3; --line: #3a3e42; --band: #1f2225;
    --c0: #4aa8e0; --c1: #f58a4b; --c2: #2fc79a; --c3: #e09ac4; --c4: #f0b83c; --c5: #9bd3f5; color-scheme: dark; } }
* { box-sizing: border-box; }
body { margin: 2rem auto; padding: 0 1rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { margin: .5rem 0; max-width: 46rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
caption, figcaption, footer, small { color: var(--faint); font-size: .85rem; } caption { text-align: left; }
caption { caption-side: bottom; padding-top: .4rem; }
th, td { padding: .25rem .8rem .25rem .4rem; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; background: var(--band); } .t { text-align: left; }
td { white-space: nowrap; } td.t { white-space: normal; min-width: 9rem; } td small { display: block; }
figure { margin: 1rem 0; } figure svg, figure img { max-width: 100%; height: auto; }
pre { overflow-x: auto; background: var(--band); padding: .8rem; font-size: .8rem; white-space: pre-wrap; }
@media print { body { margin: 0; max-width: none; font-size: 10pt; } .wide { overflow: visible; }
  figure, tr, h2 { break-inside: avoid; } h2 { break-after: avoid; } }
"""

LISTED = 20
"""Swaps of models that are listed one by one, at most."""

FEWEST = 5
"""Trials at one level of assistance, below which it has no column of its own."""

SAFE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Nothing that found its way in may load or run anything."""


class Html(str):
    """Text that is HTML already. Any other is escaped."""


def page(path: str | Path, title: str, sections: Mapping[str, Sequence[str]]) -> Path:
    """Write a page: a title, and sections of paragraphs, tables and figures. One without parts is left out.

    Raises StreamError where it cannot be written.
    """
    body = []
    for head, parts in sections.items():
        if parts:
            body.append(f"<section><h2>{_text(head)}</h2>")
            body += [part if isinstance(part, Html) else f"<p>{_text(part)}</p>" for part in parts]
            body.append("</section>")
    path = Path(path)
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    written = f"Written by rheobase {versions().get('rheobase', '')}, {now}"
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{SAFE}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{_text(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><main><h1>{_text(title)}</h1>\n"
        + "\n".join(body)
        + f"\n</main><footer><p>{_text(written)}</p></footer></body></html>\n"
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise StreamError(f"cannot write {path}: {e.strerror or e}") from None
    return path


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "", texts: int = 1) -> Html:
    """A table; units stand in its heads. The first `texts` columns are words, the others numbers."""

    def line(tag: str, cells: Sequence[object]) -> str:
        each = (f"<{tag}{' class=t' if k < texts else ''}>{_text(cell)}</{tag}>" for k, cell in enumerate(cells))
        return f"<tr>{''.join(each)}</tr>\n"

    said = f"<caption>{_text(caption)}</caption>" if caption else ""
    body = f"<thead>{line('th', heads)}</thead><tbody>{''.join(line('td', row) for row in rows)}</tbody>"
    return Html(f'<div class="wide"><table>{said}{body}</table></div>')


def drawn(name: str, caption: str, *of: Any) -> Html:
    """A figure of `figures.py`, by its name, and what it shows; without matplotlib a line that says so."""
    try:
        from rheobase.tools import figures
    except ModuleNotFoundError:
        return Html("<p>No figure: it needs matplotlib (pip install 'rheobase[view]').</p>")
    said, inside = _text(caption), figures.inline(lambda: getattr(figures, name)(*of))
    return Html(f'<figure role="img" aria-label="{said}">{inside}<figcaption>{said}</figcaption></figure>')


def listing(text: str) -> Html:
    """Text as it stands in a file."""
    return Html(f"<pre>{_text(text)}</pre>")


def scores_page(scores: Scores, path: str | Path) -> Path:
    """The page of `rheo eval` and `rheo fit`: every decoder's errors beside each other, what it decoded, how well its
    covariance tells how wrong it is, and what all that depends on. Returns the path. Raises StreamError.
    """
    certain = [r for r in scores.rows if r.coverage]
    sections: dict[str, Sequence[str]] = {
        "Scores": _scores(scores),
        "Decoded and truth": [drawn("decoded", "The first minute of the test part, at most.", scores)],
        "Calibration of uncertainty": _calibration(certain) if certain else [],
        "Config": [listing(yaml.safe_dump(scores.config, sort_keys=False))] if scores.config else [],
        "Versions": [_versions(versions())],
    }
    return page(path, f"{scores.title}: decoders on held-out time", sections)


def closed_loop_page(folder: Path, path: Path | None = None, more: Mapping[str, Sequence[str]] | None = None) -> Path:
    """The page of a run directory, `report.html` in it: how the person did, how old samples were and what was lost.

    A run without a task has the tables only, and what is given as `more` sections. Returns the path. Raises StreamError
    where the folder holds no run, or a file in it is damaged.
    """
    folder = Path(folder)
    try:
        config = (folder / "config.yaml").read_text()
        graph = yaml.safe_load(config)
        name, nodes = str(graph["name"]), dict(graph["nodes"])
    except FileNotFoundError:
        raise StreamError(f"{folder}: not a run directory: it has no config.yaml") from None
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as e:
        raise StreamError(f"{folder / 'config.yaml'}: not the config of a run: {e}") from None
    sections: dict[str, Sequence[str]] = {}
    if any(dict(node).get("type") == "task" for node in nodes.values()):
        sections |= _closed_loop(folder)
    sections |= more or {}
    told, packages = _json(folder / "tables.json"), _json(folder / "versions.json")
    sections |= _tables(told)
    sections["Config"] = [listing(config)]
    sections["Versions"] = [_versions(packages)] if packages else []
    lasted = f", {told['seconds']:.1f} s" if "seconds" in told else ""
    return page(path or folder / "report.html", f"{name}: {folder.resolve().name}{lasted}", sections)


def _scores(scores: Scores) -> list[str]:
    spans = any(r.interval(m) for r in scores.rows for m in scores.metrics)
    seeds = max(len(r.scores[m]) for r in scores.rows for m in scores.metrics)
    lasts = scores.times[-1] - scores.times[0] if len(scores.times) else 0.0
    said = f"{len(scores.Z)} test samples over {lasts:.0f} s that no decoder had learnt from. Bold: the best."
    if seeds > 1:
        said += f" Of decoders that draw at random: mean ± standard deviation over {seeds} seeds."
    if spans:
        said += (
            f" In brackets: 95 % interval by moving-block bootstrap of the test part, in blocks of {BLOCK:g} s; it"
            " does not know of other days. ≈: the paired difference from the best has an interval that holds 0."
        )
    else:
        said += " The test part is too short for error bars."
    rows = [
        [_named(r.name, r.what), *(_score(scores, r, m) for m in scores.metrics), f"{r.seconds:.1f}", r.missing]
        for r in scores.rows
    ]
    if scores.floor:
        floor = [f"{scores.floor[m]:.4f}" for m in scores.metrics]
        rows.append([_named("none", "the mean of the training truth"), *floor, "", ""])
    heads = ["decoder", *map(scores.heading, scores.metrics), "fit, s", "missing, samples"]
    shown = ["its 95 % interval"] * spans + ["each seed (bars across)"] * (seeds > 1)
    caption = f"{' and '.join(['Mean of each score', *shown])}; dashed: the training mean."
    return [said, table(heads, rows), drawn("errors", caption, scores)]


def _named(name: str, what: str) -> Html:
    return Html(f"{_text(name)}<small>{_text(what)}</small>")


def _score(scores: Scores, row: Row, metric: str) -> Html:
    best = scores.best(scores.rows, metric)
    cell = _text(scores.cell(row, metric))
    cell = f"<b>{cell}</b>" if row is best else cell
    if row is not best and scores.as_good(row, best, metric):
        cell = f"≈ {cell}"
    if interval := row.interval(metric):
        cell += f"<small>[{interval[0]:.4f}, {interval[1]:.4f}]</small>"
    return Html(cell)


def _calibration(rows: Sequence[Row]) -> list[str]:
    said = (
        "Share of the test samples whose truth lies within the ellipse that a decoder's covariance draws around its"
        " estimate. One that knows how wrong it is has 50 % within the ellipse of 50 %."
        " NEES: the squared error as a multiple of what the covariance says; 1 is right, more is too sure."
        " Log score: mean log density of the truth under the decoder's N(y, Σ); more is better."
    )
    heads = ["decoder", *(f"within {k} %, %" for k in TOLD), "NEES", "log score, nats a sample"]
    cells = [[r.name, *(f"{r.coverage[k]:.1f}" for k in TOLD), f"{r.nees:.2f}", f"{r.log_score:.3f}"] for r in rows]
    caption = f"Ellipses of {LEVELS[0]} to {LEVELS[-1]} %. Below the diagonal a decoder is too sure of itself."
    return [said, table(heads, cells), drawn("reliability", caption, rows)]


def _closed_loop(folder: Path) -> dict[str, Sequence[str]]:
    try:
        trials, task = recorded(folder)
    except StreamError as e:  # the tables are there all the same
        return {"Task": [str(e)]}
    if not trials:
        return {f"Task: {task}": ["No trial came to its end."]}
    total, changes = summary(trials, task), swaps(folder)
    parts: list[str] = [
        _trials(trials, task, total),
        drawn("trajectories", "The last trials, by how they ended.", trials, task == "grid"),
        drawn("course", _course_said(changes), trials, changes),
    ]
    if changes:
        parts.append(_swaps(changes, float(trials[0].times[0])))
    if task != "grid":
        line = total.get("slope_s_per_bit"), total.get("intercept_s")
        caption = "Movement time against difficulty, targets acquired"
        caption += "; the line is that of least squares." if line[0] is not None else "."
        parts.append(drawn("fitts", caption, trials, *line))
    return {f"Task: {task}": parts}


def _trials(trials: Sequence[Trial], task: str, total: dict[str, Any]) -> Html:
    """What the trials add up to: all, and those at each level of assistance where there are several."""
    levels = [round(t.assist, 3) for t in trials]
    several = [a for a in dict.fromkeys(levels) if levels.count(a) >= FEWEST]
    sums = {"all trials": total}
    if len(set(levels)) > 1:
        for a in several:
            own = [t for t, level in zip(trials, levels, strict=True) if level == a]
            sums[f"assistance {100 * a:g} %" if a else "no assistance"] = summary(own, task)
    rows: list[list[object]] = [
        ["targets acquired", *(f"{s['acquired']} of {s['trials']}" for s in sums.values())],
        ["timed out", *(s["timeouts"] for s in sums.values())],
        ["time in trials, s", *(f"{s['seconds']:.1f}" for s in sums.values())],
    ]
    if task == "grid":
        rows.insert(2, ["wrong target selected", *(s["wrong"] for s in sums.values())])
    for key, (words, form) in LINES.items():
        if total.get(key) is not None:
            rows.append([words, *(_spanned(s.get(key), s["intervals"].get(key), form) for s in sums.values())])
    caption = "In brackets: 95 % interval, by bootstrap over trials. Definitions: tools/trials.py."
    return table(["", *sums], rows, caption)


def _spanned(value: float | None, interval: Sequence[float] | None, form: str) -> Html:
    if value is None:
        return Html("–")
    span = f"<small>[{interval[0]:{form}}, {interval[1]:{form}}]</small>" if interval else ""
    return Html(f"{value:{form}}{span}")


def _swaps(changes: Sequence[Swap], t0: float) -> Html:
    """Each swap, or each node's where they are many."""
    if len(changes) <= LISTED:
        told = [[k + 1, s.node, Path(s.model).name, f"{s.time - t0:.2f}"] for k, s in enumerate(changes)]
        heads = ["model", "node", "file", "put in at, s"]
        return table(heads, told, "Models put in while it ran; time from the first trial.", texts=3)
    rows: list[list[object]] = []
    for node in dict.fromkeys(s.node for s in changes):
        times = [s.time - t0 for s in changes if s.node == node]
        rows.append([node, len(times), f"{times[0]:.2f}", f"{times[-1]:.2f}"])
    return table(["node", "models put in", "first at, s", "last at, s"], rows, "Times from the first trial.")


def _course_said(changes: Sequence[Swap]) -> str:
    said = "Over time: targets acquired in the last minute, and of each trial its time, path efficiency and assistance."
    return said + (" Vertical lines: a model was put in." if changes else "")


def _tables(told: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Ages, losses and health of a run, by its tables.json."""
    ages, losses, health = told.get("ages_s", {}), told.get("losses", []), told.get("health", {})
    ms = ("p50", "p99", "p99.9", "max")
    aged = [[name, a.get("n", ""), *(f"{1e3 * a[k]:.2f}" for k in ms)] for name, a in ages.items()]
    columns = ("edge", "policy", "sent", "received", "dropped", "gaps", "lost")
    lost = [["?" if row.get(k) is None else row[k] for k in columns] for row in losses]
    counted = [[node, word, n] for node, counts in health.items() for word, n in counts.items() if n]
    verdict = "" if told.get("ok", True) else "Samples were lost on an edge that may lose none."
    return {
        "Age of samples at each sink": [
            table(["sink", "blocks", *(f"{k}, ms" for k in ms)], aged, "Now less the time of a block's oldest sample.")
        ]
        if aged
        else [],
        "Edges between processes": [
            *([verdict] if verdict else []),
            *([table([*columns[:2], *(f"{k}, samples" for k in columns[2:])], lost, texts=2)] if lost else []),
        ],
        "Counted by nodes": [table(["node", "what", "count"], counted, texts=2)] if counted else [],
    }


def _versions(packages: Mapping[str, Any]) -> Html:
    return table(["package", "version"], list(packages.items()), texts=2)


def _json(path: Path) -> dict[str, Any]:
    """An object from a file; empty where there is no file."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise StreamError(f"{path}: {e}") from None
    if not isinstance(found, dict):
        raise StreamError(f"{path}: holds no table")
    return found


def _text(x: object) -> str:
    return x if isinstance(x, Html) else html.escape(str(x))
