"""rheo calibrate: the graphs it makes of a user's, what it refuses, and a whole one by LSL, cut short and not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rheobase.devices._labelled import read_labelled
from rheobase.devices.recalibrate import LABEL, Recalibrate
from rheobase.nodes.zscore import write_moments
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.files import load_model
from rheobase.stream.graph import parse
from rheobase.tools.calibrate import Calibration, Session, schedule
from rheobase.tools.fit import Gathered

GRAPH = """
name: cal
nodes:
  user:   {type: cursor_user, array: CalArray, task: CalTask, process: user}
  array:  {type: lsl, stream: {name: CalArray}, process: acquire}
  rates:  {type: bins, in: array, width: 0.02}
  z:      {type: zscore, in: rates, model: models/z.npz}
  cursor: {type: dkf, in: z, f: ridge, model: models/cursor.npz}
  smooth: {type: lowpass, in: cursor, corner: 5}
  task:   {type: task, in: smooth}
  out:    {type: lsl_out, in: task, stream: CalTask}
  speed:  {type: lsl_out, in: smooth, stream: CalSpeed}
  rec:    {type: record, in: [array, task, cursor], process: record}
"""


def made(text: str = GRAPH, name: str | None = None) -> Calibration:
    return Calibration(parse(text, "g.yaml"), Path("there"), name)


def edges(graph: Any) -> dict[str, list[str]]:
    return {k: [e.source for e in p.edges] for k, p in graph.places.items()}


def test_the_open_loop_leaves_out_the_decoder_and_what_hangs_on_it() -> None:
    graph = made().open_loop()
    assert edges(graph) == {
        "user": [],
        "array": [],
        "rates": ["array"],
        "z": ["rates"],
        "task": ["z"],
        "out": ["task"],
        "rec": ["array", "task"],
    }
    assert graph["task"].control is False  # type: ignore[attr-defined]
    assert graph["z"].model == ""  # type: ignore[attr-defined]
    assert [graph.places[k].process for k in ("user", "array", "rates", "rec")] == ["user", "acquire", "main", "record"]


def test_the_assisted_graph_refits_beside_the_stream() -> None:
    graph = made().assisted([(60, 0.8), (30, 0.2)], None)
    assert edges(graph) == edges(parse(GRAPH)) | {"recalibrate": ["z", "task"]}
    assert graph["task"].assist == [{"seconds": 60, "attenuate": 0.8}, {"seconds": 30, "attenuate": 0.2}]  # type: ignore[attr-defined]
    sink = graph["recalibrate"]
    assert isinstance(sink, Recalibrate)
    assert (sink.node, sink.every, sink.window) == ("cursor", 5, 0)
    assert sink.earlier == str(Path("there/models/labelled.npz"))
    assert graph.places["recalibrate"].process == "recalibrate"
    models = [graph[k].model for k in ("z", "cursor")]  # type: ignore[attr-defined]
    assert models == [str(Path(f"there/models/{k}.npz")) for k in ("z", "cursor")]


def test_a_recalibrate_node_of_the_graph_is_taken_as_it_is() -> None:
    own = "  recal: {type: recalibrate, in: [z, task], node: cursor, every: 3, window: 90, process: recal}\n"
    this = made(GRAPH + own)
    assert "recal" not in this.open_loop()
    sinks = [this.assisted([(60, 0.8)], every)["recal"] for every in (None, 2.0)]
    assert [(s.every, s.window) for s in sinks] == [(3, 90), (2, 90)]  # type: ignore[attr-defined]
    assert "recalibrate" not in this.assisted([(60, 0.8)], None)


def test_what_is_written_is_of_all_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model, the moments that go with it, and the labelled data that the graph's own refits go on from."""
    monkeypatch.chdir(tmp_path)
    own = "  recal: {type: recalibrate, in: [z, task], node: cursor, earlier: models/seen.npz, process: recal}\n"
    this = made(GRAPH.replace("f: ridge, ", "").replace("type: dkf", "type: ridge") + own)
    x, rng = Spec(rate=50, channels=("a", "b", "c"), unit=""), np.random.default_rng(0)
    write_moments(this.models["z"], x, rng.standard_normal((9, 3)))
    sessions = []
    for k in range(2):
        t, X = 9.0 * k + np.arange(40) / 50, rng.standard_normal((40, 3))
        task = Gathered(x, X, t, np.zeros(40, np.int64))
        sessions.append(Session(x, (t, X, X[:, :2] - X[:, 2:], np.zeros(40, np.int64)), task))
    written = this.write(*sessions)
    assert written == [Path("models/cursor.npz"), Path("models/z.npz"), Path("models/seen.npz")]
    arrays, header = load_model(written[0])
    np.testing.assert_allclose(arrays["W"], [[1, 0], [0, 1], [-1, -1]], atol=1e-4)
    assert (header["rows"], header["out"]["channels"], header["out"]["unit"]) == (
        80,
        ["intended_x", "intended_y"],
        "m/s",
    )
    assert load_model(written[1])[0].keys() == {"mean", "sd"}
    times, _, _, stretch = read_labelled(written[2], x, LABEL)
    np.testing.assert_array_equal(times, np.concatenate([s.rows[0] for s in sessions]))
    assert len(np.unique(stretch)) == 2


def test_what_is_learnt_from_is_recorded() -> None:
    this = made(GRAPH[: GRAPH.index("  rec:")])
    assert edges(this.open_loop())["record"] == ["array", "task"]
    assert edges(this.assisted([(60, 0.8)], None))["record"] == ["array", "task", "cursor"]


def test_the_users_graph_stays_as_it_is() -> None:
    graph = parse(GRAPH)
    before = graph.to_dict()
    this = Calibration(graph, Path("there"))
    this.open_loop()
    this.assisted([(60, 0.8)], 1.0)
    assert graph.to_dict() == before


def test_a_running_z_score_before_the_decoder_is_warned_of() -> None:
    assert made().notes == []
    [note] = made(GRAPH.replace(", model: models/z.npz", "")).notes
    assert note.startswith("node 'z' (zscore) learns anew in each run")


TWO = GRAPH.replace("smooth: {type: lowpass, in: cursor, corner: 5}", "smooth: {type: kalman, in: cursor}")


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        (
            GRAPH.replace("type: task,", "type: pick, channels: [a],"),
            None,
            "needs one task node (type: task), and there is none",
        ),
        (GRAPH + "  more: {type: task, in: cursor}\n", None, "and there is several (task, more)"),
        (GRAPH.replace("in: smooth}", "in: rates}"), None, "no decoder leads to 'task'"),
        (TWO, None, "decoders cursor, smooth lead to 'task': choose one by --node"),
        (TWO, "curser", "no decoder 'curser' above 'task'; did you mean 'cursor'?"),
        (GRAPH.replace("[array, task, cursor]", "[task, cursor]"), None, "node 'rec' (record): in: lacks array: "),
        (
            GRAPH.replace("f: ridge", "f: rige"),
            None,
            "node 'cursor' (dkf): f: unknown type 'rige'; did you mean 'ridge'",
        ),
        (GRAPH.replace("f: ridge", "f: {type: ridge, lag: 3}"), None, "f: unknown key 'lag'; did you mean 'lags'"),
        (GRAPH.replace("models/cursor.npz", f"{__file__}/x.npz"), None, "node 'cursor' (dkf): model: cannot write"),
    ],
)
def test_says_what_is_wrong(text: str, name: str | None, says: str) -> None:
    with pytest.raises(StreamError) as e:
        made(text, name)
    assert says in str(e.value)


def test_a_schedule_in_words() -> None:
    assert schedule("60:0.8,5.5:0") == [(60, 0.8), (5.5, 0)]
    for text in ("60", "60:0.8,", "60:1", "0:0.5", "a:b", "nan:0.5", "inf:0.5", "1:2:3"):
        with pytest.raises(StreamError, match="write SECONDS:SHARE"):
            schedule(text)


@contextlib.contextmanager
def started(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    (folder / "g.yaml").write_text(GRAPH)
    command = [sys.executable, "-m", "rheobase.stream", "calibrate", "g.yaml", "--folder", "cal", *words]
    env = os.environ | {"COLUMNS": "200"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True, env=env) as child:
        try:
            yield child
        finally:
            child.kill()  # its own children see that it is gone


@pytest.mark.slow
def test_a_calibration_by_lsl_and_its_replay(tmp_path: Path) -> None:
    """Models are swapped in, nothing is lost, and the replay is the same to the byte across them."""
    pytest.importorskip("pylsl")
    with started(tmp_path, "--open", "6", "--assist", "5:0.8,5:0.2", "--every", "2") as child:
        said, wrong = child.communicate(timeout=500)
    assert "wrote models/cursor.npz" in said, said + wrong
    assert "5 s, 20% attenuated" in said
    driven = tmp_path / "cal" / "assisted"
    tables = json.loads((driven / "tables.json").read_text())
    assert tables["ok"]
    assert all(row["lost"] == 0 for row in tables["losses"])
    swaps = [json.loads(line) for line in (driven / "swaps.jsonl").read_text().splitlines()]
    assert [s["model"] for s in swaps] == [f"models/cursor-{k:03d}.npz" for k in range(1, len(swaps) + 1)]
    assert swaps
    health = tables["health"]
    assert health["recalibrate"]["swaps"] >= health["cursor"]["swaps"] == len(swaps)
    assert health["recalibrate"]["failed"] == health["recalibrate"]["unpaired"] == health["cursor"]["refused"] == 0
    # each is of the open loop and of all that was wanted until then
    rows = [load_model(driven / s["model"])[1]["rows"] for s in swaps]
    opened = len(load_model(tmp_path / "cal" / "models" / "labelled.npz")[0]["times"])
    assert np.all(np.diff([opened, *rows]) > 0)
    assert load_model(tmp_path / "models" / "cursor.npz")[1]["rows"] >= rows[-1]
    assert (tmp_path / "models" / "z.npz").exists()
    command = [sys.executable, "-m", "rheobase.stream", "replay", str(driven), "--speed", "max"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "live is replay: all decoded samples are byte-identical" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_ctrl_c_leaves_what_was_recorded(tmp_path: Path) -> None:
    pytest.importorskip("pylsl")
    with started(tmp_path, "--open", "4", "--assist", "60:0.8", "--every", "1") as child:
        until = time.monotonic() + 500
        while not (tmp_path / "cal" / "assisted" / "swaps.jsonl").exists():
            assert child.poll() is None and time.monotonic() < until, child.communicate()
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        said, wrong = child.communicate(timeout=200)
    assert child.returncode == 130, said + wrong
    assert "interrupted: " in said
    assert "cal/assisted/models" in said
    assert not (tmp_path / "models").exists()
    assert json.loads((tmp_path / "cal" / "assisted" / "tables.json").read_text())["samples"]["cursor"] > 0
