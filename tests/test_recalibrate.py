"""Refits of a decoder while it runs: what is paired, what is learnt, what is told, what may go wrong."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rheobase.devices._labelled import PENDING, Labelled, read_labelled, rotation, write_labelled
from rheobase.devices.recalibrate import Recalibrate
from rheobase.nodes.ridge import Ridge
from rheobase.stream.block import Block, Spec, StreamError, numbered

RATE = 50.0
X = Spec(rate=RATE, channels=numbered("n", 4), unit="count")
TASK = Spec(rate=RATE, channels=("cursor_x", "cursor_y", "intended_x", "intended_y"), unit="m")
WEIGHTS = np.array([[1.0, 0.3], [-0.5, 2.0], [0.7, 0.1], [0.2, -1.1]])


def samples(a: int, b: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """times, features and what was wanted, a linear function of them, of samples a to b."""
    x = np.random.default_rng(seed).standard_normal((b, 4))[a:]
    return 100 + np.arange(a, b) / RATE, x, x @ WEIGHTS


def feed(sink: Any, a: int, b: int, block: int = 7, segment: int = 0) -> None:
    """Samples a to b, the task a block behind the features, both cut otherwise."""
    t, x, z = samples(a, b)
    rows = np.hstack([np.full_like(z, 9.0), z])
    for k in range(0, b - a, block):
        part = slice(k, min(k + block, b - a))
        sink.take(0, Block(x[part], t[part], a + k, segment))
        late = slice(max(0, k - 3), b - a if k + block >= b - a else max(0, k + block - 3))
        if late.stop > late.start:
            sink.take(1, Block(rows[late], t[late], a + late.start, segment))


def config(model: Path, **changes: Any) -> dict[str, Any]:
    nodes: dict[str, Any] = {
        "rates": {"type": "bins", "in": [{"from": "array", "policy": "block"}], "width": 0.02},
        "cursor": {"type": "ridge", "in": [{"from": "rates", "policy": "block"}], "model": str(model), "alpha": 0.0},
        "task": {"type": "pick", "in": [{"from": "cursor", "policy": "block"}], "channels": ["a"]},
        "recal": {"type": "recalibrate", "in": ["rates", "task"], "process": "recal", "node": "cursor"},
    }
    return {"name": "t", "nodes": nodes | changes}


class Heard(list[Any]):
    """What a node told, and a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.new = threading.Event()

    def __call__(self, what: dict[str, Any]) -> None:
        self.append(what)
        self.new.set()


def ready(tmp_path: Path, **values: Any) -> tuple[Recalibrate, Heard]:
    """A sink as the engine makes it, beside a decoder whose model is all wrong."""
    rng = np.random.default_rng(5)
    out = Spec(rate=0, channels=("vx", "vy"), unit="m/s")
    first = Ridge(alpha=0.0).fit(rng.standard_normal((90, 4)), rng.standard_normal((90, 2)), inputs=X, outputs=out)
    model = first.save(tmp_path / "first.npz")
    sink = Recalibrate(node="cursor", **values)
    heard = Heard()
    sink.name, sink.inputs, sink.folder, sink.config = "recal", ("rates", "task"), tmp_path, config(model)
    sink.tell = heard
    return sink, heard


def test_a_refit_is_the_fit_on_all_labelled_rows_and_is_told(tmp_path: Path) -> None:
    sink, heard = ready(tmp_path, least=2, every=1, window=0)
    sink.check()
    sink.start(X, TASK)
    feed(sink, 0, 120)
    sink.fitting.join()  # type: ignore[union-attr]
    sink.stop()
    assert heard[0] == {"swap": {"node": "cursor", "model": str(tmp_path / "models" / "cursor-001.npz")}}
    swapped = Ridge(alpha=0.0, model=heard[0]["swap"]["model"])
    assert swapped.start(X).channels == ("vx", "vy")
    np.testing.assert_allclose(swapped.arrays["W"], WEIGHTS, atol=1e-9)
    header = swapped.header
    assert header["out"]["unit"] == "m/s"
    assert (header["refit"], header["turned"]) == (1, [[1, 0], [0, 1]])
    assert header["rows"] == 109  # due 2 s after the first block of the task (4 rows), with the one that ends at 108
    np.testing.assert_allclose(header["times"], [100, 100 + (header["rows"] - 1) / RATE])
    assert sink.health["swaps"] == sink.health["refits"] == len(heard)
    assert sink.health["failed"] == sink.health["unpaired"] == 0


def test_refits_come_every_so_often_and_never_two_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, heard = ready(tmp_path, least=1, every=1)
    go, began, fitting = threading.Event(), threading.Event(), []
    plain = Ridge.learn

    def slow(self: Ridge, *given: Any) -> Any:
        fitting.append(1)
        began.set()
        assert go.wait(30)
        return plain(self, *given)

    monkeypatch.setattr(Ridge, "learn", slow)
    sink.start(X, TASK)
    feed(sink, 0, 500)  # 10 s, and take() has come back each time, though the first fit has not ended
    assert began.wait(30)
    assert (len(fitting), sink.refits, heard) == (1, 1, [])
    go.set()
    assert heard.new.wait(30)
    sink.fitting.join()  # type: ignore[union-attr]
    feed(sink, 500, 540)
    sink.fitting.join()  # type: ignore[union-attr]
    sink.stop()
    assert len(fitting) == len(heard) == 2


def test_after_the_end_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, heard = ready(tmp_path, least=1, every=1)
    plain, go = Ridge.learn, threading.Event()

    def slow(self: Ridge, *given: Any) -> Any:
        assert go.wait(30)
        return plain(self, *given)

    monkeypatch.setattr(Ridge, "learn", slow)
    monkeypatch.setattr("rheobase.devices.recalibrate.LAST", 0.01)
    sink.start(X, TASK)
    feed(sink, 0, 60)
    sink.stop()
    go.set()
    sink.fitting.join()  # type: ignore[union-attr]
    assert (sink.refits, sink.swaps, heard) == (1, 0, [])
    sink.stop()


def test_only_the_window_is_learnt_from(tmp_path: Path) -> None:
    sink, heard = ready(tmp_path, least=3, every=100, window=1.5)
    sink.start(X, TASK)
    feed(sink, 0, 170)
    sink.fitting.join()  # type: ignore[union-attr]
    header = Ridge(alpha=0.0, model=heard[0]["swap"]["model"])
    header.start(X)
    assert header.header["rows"] == 75
    assert header.header["times"][1] >= 103 - 3 / RATE


def test_a_fit_that_fails_is_logged_and_counted_and_the_next_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sink, heard = ready(tmp_path, least=1, every=1)
    plain = Ridge.learn

    def fails(*_: Any) -> Any:
        raise ValueError("on purpose")

    sink.start(X, TASK)
    monkeypatch.setattr(Ridge, "learn", fails)
    with caplog.at_level(logging.WARNING, "rheobase"):
        feed(sink, 0, 60)
        sink.fitting.join()  # type: ignore[union-attr]
    assert (sink.health["failed"], sink.health["swaps"], heard) == (1, 0, [])
    assert "recal: refit 1 of 'cursor' failed: on purpose" in caplog.text
    monkeypatch.setattr(Ridge, "learn", plain)
    feed(sink, 60, 120)
    sink.fitting.join()  # type: ignore[union-attr]
    assert (sink.health["failed"], sink.health["swaps"], len(heard)) == (1, 1, 1)


def test_goes_on_from_labelled_data_of_before(tmp_path: Path) -> None:
    t, x, z = samples(0, 200, seed=3)
    x[50] = np.nan
    path = write_labelled(tmp_path / "l.npz", X, ("intended_x", "intended_y"), (t, x, z, np.zeros(200, np.int64)))
    times, _, _, stretch = read_labelled(path, X, ("intended_x", "intended_y"))
    assert len(times) == 199
    assert [len(np.unique(stretch[:50])), len(np.unique(stretch[50:])), len(np.unique(stretch))] == [1, 1, 2]
    sink, heard = ready(tmp_path, least=4, every=100, earlier=str(path))
    sink.start(X, TASK)
    feed(sink, 0, 20)
    sink.fitting.join()  # type: ignore[union-attr]
    assert len(heard) == 1
    assert sink.health["rows"] >= 199
    with pytest.raises(StreamError, match="of other features or labels"):
        read_labelled(path, X.replace(rate=40), ("intended_x", "intended_y"))
    with pytest.raises(StreamError, match=r"holds no labelled data: it is of a 'ridge'"):
        read_labelled(tmp_path / "first.npz", X, ("intended_x", "intended_y"))


def test_older_labels_turn_with_the_tuning(tmp_path: Path) -> None:
    """All tuning turns by 60 degrees; old and new rows together are then those of one linear person."""
    a = np.radians(60)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    out = Spec(rate=0, channels=("vx", "vy"), unit="m/s")
    t, x, z = samples(0, 600)
    model = Ridge(alpha=0.0).fit(x[:400], z[:400], inputs=X, outputs=out).save(tmp_path / "before.npz")
    z = np.vstack([z[:400], z[400:] @ turn.T])
    sink, heard = ready(tmp_path, least=12, every=100, window=0, realign=3)
    sink.config = config(model)
    sink.start(X, TASK)
    sink.take(0, Block(x, t))
    sink.take(1, Block(np.hstack([z, z]), t))
    assert sink.fitting is None
    sink.take(0, Block(x[:1], t[-1:] + 12))
    sink.take(1, Block(np.hstack([z, z])[:1], t[-1:] + 12))
    sink.fitting.join()  # type: ignore[union-attr]
    swapped = Ridge(alpha=0.0, model=heard[0]["swap"]["model"])
    swapped.start(X)
    np.testing.assert_allclose(swapped.header["turned"], turn, atol=0.02)
    assert abs(sink.health["turned_deg"] - 60) < 1
    new = swapped.predict(x[400:]) - z[400:]
    kept = Ridge(alpha=0.0).fit(x, z).predict(x[400:]) - z[400:]
    assert np.sqrt((new**2).mean()) < 0.25 * np.sqrt((kept**2).mean())


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_rotation_and_never_a_reflection(d: int) -> None:
    rng = np.random.default_rng(6)
    Y = rng.standard_normal((50, d))
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    Q[:, 0] *= np.linalg.det(Q)
    np.testing.assert_allclose(rotation(Y, Y @ Q.T + np.where(np.arange(50) == 7, np.nan, 0)[:, None]), Q, atol=1e-12)
    mirrored = rotation(Y, -Y if d % 2 else Y * np.r_[-1.0, np.ones(d - 1)])
    assert np.isclose(np.linalg.det(mirrored), 1)


class TestLabelled:
    """Pairs of equal times."""

    def test_what_has_no_partner_is_counted_and_ends_a_stretch(self) -> None:
        t, x, z = samples(0, 40)
        got = Labelled([0, 1])
        there = np.r_[0:10, 15:30, 33:40]
        got.take(0, Block(x, t))
        got.take(1, Block(z[there], t[there]))
        got.pair()
        times, X_, Z, stretch = got.all()
        np.testing.assert_array_equal(times, t[there])
        np.testing.assert_array_equal(Z, z[there])
        np.testing.assert_array_equal(X_, x[there])
        np.testing.assert_array_equal(stretch - stretch[0], [0] * 10 + [1] * 15 + [2] * 7)
        assert (got.rows, got.unpaired) == (32, 8)

    @pytest.mark.parametrize("cut", [1, 3, 16, 40])
    def test_the_cut_into_blocks_does_not_matter(self, cut: int) -> None:
        t, x, z = samples(0, 40)
        got = Labelled([0, 1])
        for a in range(0, 40, cut):
            segment = int(a >= 16)
            got.take(0, Block(x[a : a + cut], t[a : a + cut], a, segment if cut in (1, 16) else 0))
            got.take(1, Block(z[a : a + cut], t[a : a + cut], a))
            got.pair()
        times, X_, Z, stretch = got.all()
        np.testing.assert_array_equal(times, t)
        np.testing.assert_array_equal(X_ @ WEIGHTS, Z)
        assert stretch[-1] - stretch[0] == (1 if cut in (1, 16) else 0)
        assert got.unpaired == 0

    def test_a_clock_set_back_mixes_nothing_up(self) -> None:
        t, x, z = samples(0, 40)
        t[20:] -= 0.5  # five of them have times between those of before
        got = Labelled([0, 1])
        for k, part in enumerate((slice(0, 20), slice(20, 40))):
            got.take(0, Block(x[part], t[part] + 1e-3 * k, part.start, k))
            got.take(1, Block(z[part], t[part] + 1e-3 * k, part.start, k))
        got.pair()
        _, X_, Z, stretch = got.all()
        np.testing.assert_allclose(X_ @ WEIGHTS, Z)
        np.testing.assert_array_equal(stretch - stretch[0], np.repeat([0, 1], 20))

    def test_one_that_stays_away_fills_no_memory(self) -> None:
        got = Labelled([0, 1])
        for k in range(2 * PENDING):
            got.take(0, Block(np.zeros((1, 4)), np.array([float(k)]), k))
            if k % 10 == 0:
                got.take(1, Block(np.zeros((1, 2)), np.array([-1.0])))
                got.pair()
        assert got.rows == 0
        assert got.unpaired == 2 * PENDING - 9 - PENDING

    def test_the_newest_rows_are_kept(self) -> None:
        t, x, z = samples(0, 40)
        got = Labelled([0, 1], most=13)
        for a in range(0, 40, 5):
            got.take(0, Block(x[a : a + 5], t[a : a + 5], a))
            got.take(1, Block(z[a : a + 5], t[a : a + 5], a))
            got.pair()
        np.testing.assert_array_equal(got.all()[0], t[-13:])
        assert got.rows == 13


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"node": "curser"}, "node: no node 'curser'; did you mean 'cursor'?"),
        ({"node": "rates"}, "node: 'rates' (bins) is not learnt; there is cursor"),
        (
            {"label": ("intended_x", "intendd_y")},
            "label: no channel 'intendd_y'; did you mean 'intended_y'? (in: task)",
        ),
        ({"label": ("intended_x",)}, "label: 'cursor' gives 2 channels, intended_x are not"),
        ({"inputs": ("array", "task")}, "in: the first is 'array', and 'cursor' decodes 'rates'"),
        ({"folder": None}, "needs a run directory to put its models in"),
        ({"earlier": "gone.npz"}, "earlier: no file 'gone.npz'"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    sink, _ = ready(tmp_path)
    for key, value in change.items():
        setattr(sink, key, value)
    with pytest.raises(StreamError) as e:
        sink.start(X, TASK)
    assert str(e.value) == says


def test_refuses_other_inputs_processes_and_models(tmp_path: Path) -> None:
    sink, _ = ready(tmp_path)
    with pytest.raises(StreamError, match=r"in: takes \[features, task\], got 1"):
        sink.start(X)
    with pytest.raises(StreamError, match="rates 50 and 10 Hz differ"):
        sink.start(X, TASK.replace(rate=10))
    with pytest.raises(StreamError, match="in: takes numbers"):
        sink.start(X.replace(dtype="str"), TASK)
    first = tmp_path / "first.npz"
    sink.config = config(
        first, recal={"type": "recalibrate", "in": ["rates", "task"]}, user={"type": "pick", "process": "user"}
    )
    with pytest.raises(StreamError, match=r"process: 'main' decodes with 'cursor': give the refits a process"):
        sink.check()
    sink.config = config(first, recal={"type": "recalibrate", "in": ["rates", "task"]})  # one process is all there is
    sink.check()
    sink.config = config(Path())
    sink.config["nodes"]["cursor"]["model"] = ""
    with pytest.raises(StreamError, match="node: 'cursor' has no model to begin with"):
        sink.start(X, TASK)
    with pytest.raises(StreamError, match="node: 'cursor' has no model to begin with"):
        sink.check()
    sink.config = config(first, recal={"type": "recalibrate", "in": ["rates"]})
    with pytest.raises(StreamError, match=r"in: takes \[features, task\], got 1"):
        sink.check()
    sink.earlier = "gone.npz"
    with pytest.raises(StreamError, match=r"earlier: no file 'gone\.npz'"):
        sink.check()
