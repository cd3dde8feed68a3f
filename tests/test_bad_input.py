"""Whatever a user gives the command: one line on stderr that says what and where, no traceback, no hang."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).parent
GOOD = """
name: g
nodes:
  src: {type: "parts:Recorded", n: 50}
  b:   {type: bins, in: src, width: 0.01}
  rec: {type: record, in: [src, b]}
"""
EVAL = """
nodes:
  x: {type: replay, file: x.csv, rate: 10}
  z: {type: replay, file: x.csv, rate: 10}
  y: {type: ridge, in: x}
eval:
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "good.yaml").write_text(GOOD)
    np.savetxt(tmp_path / "x.csv", np.random.default_rng(0).normal(size=(400, 2)), delimiter=",")
    return tmp_path


def rheo(here: Path, *words: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rheobase.stream", *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )


def one_line(done: subprocess.CompletedProcess[str], says: str) -> None:
    assert done.returncode not in (0, -9)
    assert says in done.stderr
    lines = [line for line in done.stderr.splitlines() if " | dropped " not in line]  # how a run goes, once a second
    assert len(lines) == 1, done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "g.yaml: a config is a mapping"),
        (b"name: \xff", "g.yaml: is not text (UTF-8)\n"),
        (b"nodes:\n\tx: 1", "g.yaml, line 2: found character '\\t'"),
        (b"nodes: " + b"[" * 5000, "g.yaml: lists and mappings stand too deep"),
        (b"nodes: {}", "g.yaml: nodes: there is none"),
        (b"name: a/b\nnodes: {x: {}}", "g.yaml: name: 'a/b': a '/' cannot be in it"),
        (b"nodes: {x: {type: 'broken:X'}}", "type 'broken:X': broken cannot be loaded: SyntaxError"),
        (GOOD.replace("0.01", ".inf").encode(), "g.yaml: node 'b' (bins): width: must be finite, got inf"),
    ],
)
def test_odd_configs(here: Path, text: bytes, says: str) -> None:
    (here / "g.yaml").write_bytes(text)
    (here / "broken.py").write_text("def (")
    one_line(rheo(here, "run", "g.yaml"), says)
    assert not (here / "runs").exists(), "what cannot run leaves nothing behind"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rnu"], "rheo: argument COMMAND: invalid choice: 'rnu'"),
        (["run"], "the following arguments are required: GRAPH"),
        (["run", "."], "rheo: .: Is a directory"),
        (["run", "good.yaml", "--for", "-1"], "--for -1: write a number of seconds above 0"),
        (["run", "good.yaml", "--for", "nan"], "--for nan"),
        (["run", "good.yaml", "--folder", "x.csv"], "rheo: x.csv: File exists"),
        (["run", "good.yaml", "--folder", "x.csv/a"], "rheo: x.csv/a: Not a directory"),
    ],
)
def test_odd_words(here: Path, words: list[str], says: str) -> None:
    one_line(rheo(here, *words), says)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("{truth: zz}", "truth: no node 'zz'"),
        ("{truth: z, trian: [0, 9]}", "unknown key 'trian'; did you mean 'train'?"),
        ("{truth: z, train: [0, 9], test: [20, 400]}", "test: [20, 400] s is not all there: the recording lasts 39.9"),
        ("{truth: z, train: [-5, 9], test: [20, 40]}", "train: [-5, 9] s is not all there"),
        ("{truth: z, train: [9, 0], test: [20, 40]}", "train: [9, 0] s holds no sample"),
        ("{truth: z, train: [0, 20], test: [19, 40]}", "train and test overlap: 10 samples"),
        ("{truth: z, train: [0]}", "eval: train: expected `array` of length 2, got 1"),
        ("{truth: z, metrics: [nrsme]}", "metrics: unknown metric 'nrsme'; did you mean 'nrmse'?"),
    ],
)
def test_odd_eval_tables(here: Path, table: str, says: str) -> None:
    (here / "e.yaml").write_text(f"{EVAL.rstrip()} {table}\n")
    one_line(rheo(here, "eval", "e.yaml", "--folder", "out"), f"rheo: e.yaml: eval: {says.removeprefix('eval: ')}")


def test_eval_says_before_the_work_that_it_cannot_write(here: Path) -> None:
    (here / "e.yaml").write_text(f"{EVAL.rstrip()} {{truth: z, metrics: [r2]}}\n")
    one_line(rheo(here, "eval", "e.yaml", "--folder", "x.csv/out"), "rheo: x.csv/out: Not a directory")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_nowhere_to_print(here: Path) -> None:
    with open("/dev/full", "w") as full:
        one_line(rheo(here, "graph", "good.yaml", stdout=full.fileno()), "rheo: No space left on device")


LIVE = """
nodes:
  src: {{type: "parts:Ramp", n: {n}, process: acquire}}
  two: {{type: "{middle}", in: src}}
  rec: {{type: record, in: [src, two], flush: 0.05, process: record}}
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("n", "middle", "says"),
    [
        (100000, "parts:Fail", "rheo: live.yaml: node 'two' (parts:Fail): ValueError: on purpose"),
        (300, "parts:Square", "rheo: run: No space left on device"),
    ],
)
def test_a_full_disk_hides_no_error_and_no_sample(here: Path, n: int, middle: str, says: str) -> None:
    """Neither the log nor the tables can be written any more."""
    (here / "live.yaml").write_text(LIVE.format(n=n, middle=middle))
    (here / "run").mkdir()
    for name in ("log.txt", "tables.json"):
        (here / "run" / name).symlink_to("/dev/full")
    one_line(rheo(here, "run", "live.yaml", "--folder", "run"), says)
    done = rheo(here, "replay", "run/recording.xdf", "--speed", "max")
    assert (done.returncode, done.stderr) == (0, "")
    assert "src" in done.stdout


def test_a_recording_that_outgrows_its_disk_is_readable(here: Path) -> None:
    """The recorder's file may not grow any more (a limit on its size, for want of a small disk)."""
    resource = pytest.importorskip("resource")
    (here / "live.yaml").write_text(LIVE.format(n=1000000, middle="parts:Square"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, limits[1]))
    try:
        done = rheo(here, "run", "live.yaml", "--folder", "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    one_line(done, "rheo: live.yaml: node 'rec' (record): file: run/recording.xdf: File too large after")
    assert "safe on disk: " in done.stderr
    done = rheo(here, "replay", "run", "--speed", "max")
    assert (done.returncode, done.stderr) == (0, "")
    assert "byte-identical" in done.stdout


def test_missing_values_in_a_file_are_counted_and_pass(here: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2000, 3))
    x[500:510], x[700, 1], x[800, 2] = np.nan, np.inf, -np.inf
    np.savetxt(here / "nan.csv", x, delimiter=",")
    (here / "nan.yaml").write_text(
        "nodes: {x: {type: replay, file: nan.csv, rate: 1000}, l: {type: lowpass, in: x, corner: 50},"
        " b: {type: bins, in: l, width: 0.02}, z: {type: zscore, in: b}, k: {type: parts:Keep, in: z}}"
    )
    done = rheo(here, "run", "nan.yaml", "--speed", "max", "--folder", "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "x: nonfinite 12" in done.stdout
    assert np.isfinite(np.loadtxt(here / "run" / "k.txt")[-40:]).all()


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_port_that_is_none(here: Path, port: int) -> None:
    (here / "z.yaml").write_text(f"{GOOD}  out: {{type: zmq_out, in: b, address: 'tcp://127.0.0.1:{port}'}}\n")
    one_line(
        rheo(here, "run", "z.yaml"), f"rheo: z.yaml: node 'out' (zmq_out): address: 'tcp://127.0.0.1:{port}': a port is"
    )
