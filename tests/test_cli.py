"""The command rheo, typed as a user would, also wrongly: one line that says what and where, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rheobase.stream.cli import main
from rheobase.stream.node import types

GRAPH = """
name: t
nodes:
  src: {type: "parts:Recorded", n: 50}
  b:   {type: bins, in: src, width: 0.01}
  k:   {type: "parts:Keep", in: b}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.yaml").write_text(GRAPH)
    return tmp_path


def rheo(*words: str) -> int:
    return main(list(words))


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        rheo("--help")
    assert e.value.code == 0
    out = capsys.readouterr().out
    there = [line.split()[0] for line in out.splitlines() if line.startswith("    ") and line[4] != " "]
    words = (
        "run replay fit calibrate eval stress check graph nodes view top echo report bench data doctor repair keys new"
    )
    assert there == words.split()
    assert rheo() == 2


def test_run_writes_a_run_directory(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rheo("run", "g.yaml", "--folder", "one", "--speed", "max") == 0
    assert (here / "one" / "tables.json").exists()
    assert len(np.loadtxt(here / "one" / "k.txt")) == 5
    assert "in one" in capsys.readouterr().out
    assert rheo("run", "g.yaml", "--folder", "one") == 1
    assert "one: holds a run already" in capsys.readouterr().err


def test_a_run_with_a_task_ends_with_its_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trials 1 s long: the cursor goes to each target by itself."""
    (here / "task.yaml").write_text(
        """
name: t
nodes:
  src:  {type: "parts:Recorded", n: 400, rate: 100}
  task: {type: task, in: src, control: false, timeout: 1}
  rec:  {type: record, in: [src, task]}
"""
    )
    assert rheo("run", "task.yaml", "--folder", "one", "--speed", "max") == 0
    assert "page: one/report.html" in capsys.readouterr().out
    assert "radial8" in (here / "one" / "report.html").read_text()
    assert rheo("run", "g.yaml", "--folder", "two", "--speed", "max") == 0
    assert not (here / "two" / "report.html").exists()


def test_check_and_graph(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rheo("check", "g.yaml") == 0
    out = capsys.readouterr().out
    assert "g.yaml: ok" in out
    assert "100" in out
    assert rheo("graph", "g.yaml") == 0
    assert "src --> b" in capsys.readouterr().out


def test_nodes_lists_all_and_says_all_about_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert rheo("nodes") == 0
    out = capsys.readouterr().out
    assert all(f" {word} " in out for word in types())
    assert rheo("nodes", "bins") == 0
    out = capsys.readouterr().out
    assert "width" in out
    assert "float > 0" in out
    assert rheo("nodes", "task") == 0
    out = capsys.readouterr().out
    assert "float > 0 | null" in out and "list[float > 0] | null" in out and "Annotated" not in out
    assert rheo("nodes", "binz") == 1
    assert capsys.readouterr().err == "rheo: unknown type 'binz'; did you mean 'bins'?\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: No such file"),
        (["run", "curser"], "no such embedded graph; did you mean 'cursor'"),
        (["run", "g.yaml", "--set", "b.widht=1"], "unknown key 'widht'; did you mean 'width'"),
        (["run", "g.yaml", "--set", "b.width=0.0011"], "g.yaml: node 'b' (bins): width"),
        (["run", "g.yaml", "--speed", "fast"], "--speed 'fast': write a number above 0"),
        (["run", "g.yaml", "--speed", "nan"], "--speed 'nan'"),
        (["replay", "nothing.xdf"], "no file 'nothing.xdf'"),
        (["replay", "."], "not a run directory"),
        (["check", "bad.yaml"], "bad.yaml: node 'k' (replay): no file 'gone.csv'"),
        (["fit", "g.yaml", "kk"], "no node 'kk'"),
        (["fit", "g.yaml", "b"], "b"),
        (["eval", "g.yaml"], "eval"),
        (["calibrate", "g.yaml"], "calibration needs one task node (type: task), and there is none"),
        (["calibrate", "g.yaml", "--open", "0"], "--open 0: write a number of seconds above 0"),
        (["calibrate", "g.yaml", "--assist", "60"], "--assist '60': write SECONDS:SHARE"),
        (["data", "flint2012_run1/y.csv"], "y.csv"),
        (["new", "node", "Bad-Name"], "'Bad-Name': a node's name is"),
        (["new", "node", "bins"], "'bins': a node of this type is there"),
    ],
)
def test_wrong_input_gets_one_line(here: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    (here / "bad.yaml").write_text("nodes: {k: {type: replay, file: gone.csv}}")
    assert rheo(*words) == 1
    err = capsys.readouterr().err
    assert says in err
    assert err.startswith("rheo: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_debug_shows_the_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rheo("--debug", "run", "nowhere.yaml") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["kernel", "node", "source", "sink"])
def test_a_new_node_passes_its_own_test_and_runs(here: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"my_{kind}"
    assert rheo("new", "node", name, "--kind", kind) == 0
    assert f"wrote {here}" in capsys.readouterr().out.replace("\n", "")
    if (here / f"test_{name}.py").exists():
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", f"test_{name}.py"],
            capture_output=True,
            text=True,
            cwd=here,
            env=os.environ,
        )
        assert done.returncode == 0, done.stdout
    word = f"{name}:My{kind.capitalize()}"
    assert rheo("nodes", word) == 0
    assert rheo("new", "node", name, "--kind", kind) == 1
    assert "is there already" in capsys.readouterr().err


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "rheobase.stream", "nodes", "bin"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "rheo: unknown type 'bin'; did you mean 'bins'?\n")
