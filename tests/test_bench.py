"""`rheo bench` runs, compares like with like, and says what it found. No time is asserted: a machine may be busy."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from rheobase.nodes._decoder import Decoder
from rheobase.nodes.hmm_glm import HmmGlm
from rheobase.stream.block import StreamError
from rheobase.stream.cli import main
from rheobase.stream.node import load, types
from rheobase.tools import bench
from rheobase.tools.bench import BENCHES, Row
from rheobase.tools.bench_fleet import ELSEWHERE

TINY = 0.002
pytestmark = pytest.mark.jit
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="the floors are C: gcc is not installed")


@needs_gcc
@pytest.mark.slow
def test_every_bench_gives_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    code = main(["bench", "--scale", str(TINY), "--json", str(file)])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    said = json.loads(file.read_text())
    assert said["machine"]["cpu"] and said["machine"]["numba"]
    assert list(said["benches"]) == list(BENCHES)
    rows = [r for rows in said["benches"].values() for r in rows]
    for r in rows:
        assert math.isfinite(r["ours"]), r["what"]
        if r["floor"] is not None:
            assert r["floor"] > 0
            assert r["ratio"] > 0
    judged = [r["what"] for r in rows if r["goal"] is not None]
    for word in ("a node a sample", "from Python", "Kalman, d=4", "Kalman, d=6", "DKF, d=4", "p50", "p99", "late by"):
        assert any(word in what for what in judged), word
    assert "a node a sample" in shown.out


@needs_gcc
def test_a_floor_of_other_arithmetic_is_refused() -> None:
    with pytest.raises(AssertionError):
        bench.same(np.ones(3), np.array([1.0, 1.0, 1.1]))


def test_every_decoder_is_measured() -> None:
    """Each type that can be learnt, by itself: the names of `DECODERS` make it."""
    there = {type(make()) for _, make in bench.DECODERS}
    learnt = {kind for kind in map(load, types()) if issubclass(kind, Decoder)}
    assert there | {*ELSEWHERE, HmmGlm} == learnt, "a decoder is missing from DECODERS, or has gone"


@needs_gcc
def test_a_chosen_bench(capsys: pytest.CaptureFixture[str]) -> None:
    bench.bench(["pace"], TINY)
    assert "late by" in capsys.readouterr().out


def test_bad_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "fuze"]) == 1
    assert "no bench 'fuze'; did you mean 'fuse'" in capsys.readouterr().err
    assert main(["bench", "--scale", "-1"]) == 1
    assert "--scale must be positive" in capsys.readouterr().err


def test_no_gcc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(StreamError, match="needs gcc"):
        bench.floors()


@pytest.mark.parametrize(
    ("row", "good"),
    [
        (Row("a", 3.0, "ns"), None),
        (Row("a", 3.0, "ns", goal=5.0, judged="ours"), True),
        (Row("a", 6.0, "ns", goal=5.0, judged="ours"), False),
        (Row("a", 6.0, "ns", 3.0, 2.0, goal=1.5), False),
        (Row("a", 6.0, "ns", 5.0, 1.2, goal=1.5), True),
        (Row("a", 900.0, "x", goal=1000.0, judged="ours", more=True), False),
        (Row("a", 1000.0, "x", goal=1000.0, judged="ours", more=True), True),
    ],
)
def test_goals(row: Row, good: bool | None) -> None:
    assert row.good is good


def test_ratios_are_of_turns() -> None:
    """A busy moment falls on both: the median of ratios is not the ratio of medians."""
    row = bench.pair("a", [1.0, 20.0, 3.0], [1.0, 10.0, 1.0], 1.0, "s", goal=2.0)
    assert (row.ours, row.floor, row.ratio, row.good) == (3.0, 1.0, 2.0, True)
