"""Pages: one file, nothing from elsewhere, nothing that runs, and the numbers are those of the scores."""

from __future__ import annotations

import html.parser
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rheobase.stream.block import Spec, StreamError
from rheobase.stream.graph import parse
from rheobase.stream.run import run
from rheobase.stream.swap import LOG
from rheobase.tools import page as pages
from rheobase.tools.page import Html, closed_loop_page, page, scores_page, table
from rheobase.tools.scores import LEVELS, Row, Scores, nrmse, resampled
from rheobase.tools.trials import recorded, summary

NASTY = '<script>alert("1")</script> & $x_{$ \' <img src="http://evil.example/a.png">'
VOID = {"meta", "img", "br"}


class Parsed(html.parser.HTMLParser):
    """What a page holds. Fails where its elements do not nest."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.heads: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.texts: list[str] = []
        self.raw = path.read_text()
        self.feed(self.raw)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            assert not key.startswith("on")
            if key in ("href", "src", "xlink:href", "action", "data"):
                self.links.append(value or "")
            if key == "id":
                self.ids.append(value or "")
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "h2":
            self.heads.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & {*self.open}:
            self.tables[-1][-1][-1] += f"{data} "
        if self.open and self.open[-1] == "h2":
            self.heads[-1] += data
        if "style" not in self.open:
            self.texts.append(data)

    def row(self, first: str) -> list[str]:
        """The row of any table that begins with this cell."""
        [found] = [r for t in self.tables for r in t if r and r[0].strip() == first]
        return [cell.strip() for cell in found]

    def check(self) -> None:
        """It needs nothing but itself."""
        assert not {"script", "link", "iframe", "object", "embed", "base", "form", "a"} & {*self.tags}
        assert all(link.startswith(("#", "data:image/png;base64,")) for link in self.links)
        assert "@import" not in self.raw and "url(http" not in self.raw and "xmlns" not in self.raw
        assert len(self.ids) == len(set(self.ids))
        assert {link[1:] for link in self.links if link[0] == "#"} <= {*self.ids}


def scored(d: int = 2, T: int = 600) -> Scores:
    """Three decoders, one of them certain, one best; names that nobody would choose."""
    rng = np.random.default_rng(0)
    Z, times = rng.standard_normal((T, d)), np.arange(T) / 10
    scores = Scores(NASTY, ["nrmse"])
    scores.spec = Spec(rate=10, channels=(NASTY, *(f"c{k}" for k in range(d - 1))), unit="m/s")
    scores.times, scores.Z, scores.floor, scores.config = times, Z, {"nrmse": 1.01234}, {"name": NASTY}
    for name, share in (("kalman", 0.5), (NASTY, 0.25), ("as good", 0.25)):
        Y = Z + share * rng.standard_normal((T, d))
        each = {"nrmse": [nrmse(Y, Z), nrmse(Y, Z) + 0.002]}
        scores.rows.append(Row(name, "what <b>", each, 1.25, 3, Y, {"nrmse": resampled(nrmse, Y, Z, times)}))
    scores.rows[0].coverage, scores.rows[0].nees, scores.rows[0].log_score = {k: 0.9 * k for k in LEVELS}, 1.5, -2.125
    return scores


def test_a_page_of_anything(tmp_path: Path) -> None:
    parts = [NASTY, table(["a", NASTY], [["x", NASTY], [Html("<b>1</b>"), 2]], NASTY, texts=2)]
    found = Parsed(page(tmp_path / "p.html", NASTY, {NASTY: parts, "empty": []}))
    found.check()
    assert found.heads == [NASTY]
    assert found.texts.count(NASTY) == 7  # two titles, head, paragraph, caption, head of a column, cell
    assert "b" in found.tags and found.row("1") == ["1", "2"]


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"cannot write .*p\.html: No such file"):
        page(tmp_path / "nowhere" / "p.html", "x", {})


def test_the_page_of_scores_tells_the_scores(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    scores = scored()
    found = Parsed(scores_page(scores, tmp_path / "s.html"))
    found.check()
    assert found.tags.count("svg") == 3
    best = scores.best(scores.rows)
    for row in scores.rows:
        low, high = row.interval("nrmse") or (0, 0)
        cell = next(r for r in found.tables[0] if r[0].startswith(f"{row.name} "))[1]
        assert scores.cell(row, "nrmse") in cell and f"[{low:.4f}, {high:.4f}]" in cell
        assert cell.startswith("≈") == (row is not best and row.name != "kalman")
    assert f"<b>{scores.cell(best, 'nrmse')}</b>" in found.raw
    assert found.raw.count("<b>") == 1
    assert [c.strip() for c in found.tables[0][-1][:2]] == ["none the mean of the training truth", "1.0123"]
    assert [r[0].strip() for r in found.tables[1]] == ["decoder", "kalman"]
    assert [c.strip() for c in found.tables[1][1][1:]] == ["45.0", "81.0", "85.5", "1.50", "-2.125"]
    assert found.heads == ["Scores", "Decoded and truth", "Calibration of uncertainty", "Config", "Versions"]
    assert f"{NASTY}, m/s" in found.texts  # the label of an axis, with its dollars


def test_figures_are_in_the_colours_of_the_page(tmp_path: Path) -> None:
    figures = pytest.importorskip("rheobase.tools.figures")
    text = scores_page(scored(), tmp_path / "s.html").read_text()
    body = text[text.index("</style>") :]
    for colour, variable in figures.VARIABLES.items():
        assert colour not in body
        assert f"{variable}:" in pages.STYLE
    assert "var(--c0)" in body and "var(--ink)" in body


def test_a_large_figure_becomes_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("rheobase.tools.figures.LARGEST", 1000)
    found = Parsed(scores_page(scored(), tmp_path / "s.html"))
    found.check()
    assert (found.tags.count("svg"), found.tags.count("img")) == (0, 3)


def test_a_page_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rheobase.tools.figures", None)
    monkeypatch.delattr("rheobase.tools.figures", raising=False)
    scores = scored()
    scores.draw(tmp_path / "d.png")
    assert scores.notes == ["no figure: it needs matplotlib (pip install 'rheobase[view]')"]
    found = Parsed(scores_page(scores, tmp_path / "s.html"))
    assert "svg" not in found.tags and sum("needs matplotlib" in t for t in found.texts) == 3
    assert [r[0].strip() for r in found.tables[0]][:2] == ["decoder", "kalman what <b>"]


def test_a_short_test_part_has_no_error_bars(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = Parsed(scores_page(scored(T=400), tmp_path / "s.html"))
    found.check()
    assert "too short for error bars" in found.raw and "≈" not in found.raw


RUN = """
name: "<i>cursor"
nodes:
  hand: {{type: replay, file: {0}/v.csv, rate: 20, channels: ["<b>x</b>", y], unit: m/s}}
  task: {{type: task, in: hand, task: {1}, {2}}}
  rec:  {{type: record, in: [task]}}
"""


def ran(folder: Path, task: str, more: str) -> Path:
    """A run of 60 s of a task; its input is still, so nobody drives the cursor."""
    np.savetxt(folder / "v.csv", np.zeros((1200, 2)), delimiter=",")
    run(parse(RUN.format(folder, task, more)), folder / "run")
    return folder / "run"


def test_the_page_of_a_closed_loop(tmp_path: Path) -> None:
    """Open loop: the cursor takes every target by itself."""
    pytest.importorskip("matplotlib")
    folder = ran(tmp_path, "fitts", "control: false")
    trials, task = recorded(folder)
    told = summary(trials, task)
    t = float(trials[0].times[0])
    lines = [{"node": "cursor", "model": f"models/{NASTY}.npz", "segment": 0, "time": t + 10.25}] * 2
    (folder / LOG).write_text("".join(json.dumps(s) + "\n" for s in lines))
    tables = json.loads((folder / "tables.json").read_text())
    tables["ages_s"] = {NASTY: {"n": 7, "p50": 0.0015, "p99": 0.002, "p99.9": 0.0025, "max": 0.003}}
    lost = {"edge": "a -> b", "policy": "block", "sent": 9, "received": 8, "dropped": 0, "gaps": 0, "lost": 1}
    tables |= {"losses": [lost, lost | {"edge": "c", "sent": None, "lost": None}], "ok": False}
    (folder / "tables.json").write_text(json.dumps(tables))
    path = closed_loop_page(folder)
    assert path == folder / "report.html"
    found = Parsed(path)
    found.check()
    assert found.tags.count("svg") == 3
    assert told["acquired"] == len(trials) > 10
    assert found.row("targets acquired") == ["targets acquired", f"{told['acquired']} of {told['trials']}"]
    low, high = told["intervals"]["throughput_bits_s"]
    cell = found.row("Fitts throughput, bit/s")[1]
    assert cell.split() == f"{told['throughput_bits_s']:.2f} [{low:.2f}, {high:.2f}]".split()
    line = f"{told['intercept_s']:.2f} s + {told['slope_s_per_bit']:.2f} s/bit"
    assert any(line in t for t in found.texts)
    assert found.row("2")[1:] == ["cursor", f"{NASTY}.npz".rpartition("/")[2], "10.25"]
    assert found.row(NASTY)[1:] == ["7", "1.50", "2.00", "2.50", "3.00"]
    assert found.row("a -> b")[1:] == ["block", "9", "8", "0", "0", "1"]
    assert found.row("c")[1:] == ["block", "?", "8", "0", "0", "?"]
    assert "Samples were lost" in found.raw
    assert found.row("task") == ["task", "acquired", str(told["acquired"])]
    assert found.heads[-2:] == ["Config", "Versions"]
    assert any("type: task" in t for t in found.texts) and "<i>" not in found.raw


def test_many_models_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = ran(tmp_path, "radial8", "control: false")
    t = float(recorded(folder)[0][0].times[0])
    lines = [{"node": f"n{k % 2}", "model": "m.npz", "segment": 0, "time": t + k} for k in range(30)]
    (folder / LOG).write_text("".join(json.dumps(s) + "\n" for s in lines))
    found = Parsed(closed_loop_page(folder))
    found.check()
    assert found.row("n1") == ["n1", "15", "1.00", "29.00"]


@pytest.mark.parametrize(
    "task, line, key, figures",
    [("centre_out", "timed out", "timeouts", 3), ("grid", "wrong target selected", "wrong", 2)],
)
def test_the_page_of_a_task_that_failed(tmp_path: Path, task: str, line: str, key: str, figures: int) -> None:
    """Nobody moves, so trials run out, or select the cell where the cursor is; a column with help, one without."""
    pytest.importorskip("matplotlib")
    folder = ran(tmp_path, task, "timeout: 2, assist: [{seconds: 20, attenuate: 0.5}]")
    found = Parsed(closed_loop_page(folder))
    found.check()
    assert [c.strip() for c in found.tables[0][0]] == ["", "all trials", "assistance 50 %", "no assistance"]
    whole, helped, alone = (int(n) for n in found.row(line)[1:])
    assert whole == helped + alone == summary(*recorded(folder))[key]
    assert alone > helped > 9
    assert found.tags.count("svg") == figures


@pytest.mark.parametrize("change, said", [("timeout: 10, hold: 9", "No trial came to its end"), ("", "no record node")])
def test_the_page_of_a_task_that_was_not_seen(tmp_path: Path, change: str, said: str) -> None:
    np.savetxt(tmp_path / "v.csv", np.zeros((100, 2)), delimiter=",")
    text = RUN.format(tmp_path, "radial8", change or "speed: 0.1")
    run(parse(text if change else text.split("  rec:")[0]), tmp_path / "run")
    found = Parsed(closed_loop_page(tmp_path / "run", tmp_path / "p.html"))
    found.check()
    assert said in found.raw and "svg" not in found.tags and found.heads[-1] == "Versions"


def test_the_page_of_a_run_without_a_task(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "v.csv", np.zeros((100, 2)), delimiter=",")
    text = RUN.format(tmp_path, "x", "").split("  task:")[0] + "  rec: {type: record, in: [hand], process: b}\n"
    run(parse(text), tmp_path / "run")
    found = Parsed(closed_loop_page(tmp_path / "run"))
    found.check()
    assert found.heads == ["Edges between processes", "Config", "Versions"]
    assert found.row("hand -> rec")[2:4] == ["100", "100"]


def test_says_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="not a run directory"):
        closed_loop_page(tmp_path)
    (tmp_path / "config.yaml").write_text("- a list")
    with pytest.raises(StreamError, match=r"config\.yaml: not the config of a run"):
        closed_loop_page(tmp_path)
    (tmp_path / "config.yaml").write_text("{name: x, nodes: {a: {type: replay}}}")
    (tmp_path / "tables.json").write_text('{"ages_s": ')
    with pytest.raises(StreamError, match=r"tables\.json: "):
        closed_loop_page(tmp_path)
    (tmp_path / "tables.json").write_text("[1]")
    with pytest.raises(StreamError, match=r"tables\.json: holds no table"):
        closed_loop_page(tmp_path)
