"""A model swapped live: no sample lost, and replayed to the same bytes."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rich.console
from parts import Swapper

from rheobase.nodes.dkf import DKF
from rheobase.nodes.hiss import HiSS
from rheobase.nodes.kalman import Kalman
from rheobase.nodes.ridge import Ridge
from rheobase.nodes.sequence import Sequence
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.engine import Engine
from rheobase.stream.graph import Graph, parse
from rheobase.stream.run import run
from rheobase.stream.swap import LOG, Swap, Swaps, swaps
from rheobase.tools.replay import DIFFERENT, replay_run


def model(path: Path, gain: float, node: type = Ridge, n: int = 4) -> str:
    """A decoder of two numbers from n, whose ridge weighs every channel by `gain`."""
    X = np.random.default_rng(0).standard_normal((300, n))
    return str(node().fit(X, gain * X[:, :2]).save(path))


GRAPH = """
name: t
nodes:
  src: {{type: "parts:Ramp", n: 1500, process: acquire}}
  lp:  {{type: lowpass, in: src, corner: 40}}
  dec: {{type: ridge, in: lp, model: {a}}}
  sum: {{type: lowpass, in: dec, corner: 5}}
  rec: {{type: record, in: [src, dec, sum], process: record}}
  ask: {{type: "parts:Swapper", in: src, node: dec, models: [{b}, {wide}, {a}, {b}], every: 250, process: ask}}
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live") / "run"
    made = {
        "a": model(folder / "models" / "a.npz", 1.0),
        "b": model(folder / "models" / "b.npz", -3.0),
        "wide": model(folder / "models" / "wide.npz", 1.0, n=5),
    }
    report = run(parse(GRAPH.format(**made)), folder)
    assert report.ok
    assert report.samples["dec"] == 1500
    assert report.health["dec"] == {"swaps": 3, "refused": 1}  # that of five channels is
    return folder


def replayed(folder: Path) -> tuple[int, str]:
    text = io.StringIO()
    return replay_run(folder, 0.0, rich.console.Console(file=text, width=200)), text.getvalue()


def test_every_sample_is_there_and_the_replay_is_the_run(live: Path) -> None:
    code, said = replayed(live)
    assert "dec: all 1500 samples are byte-identical to the live ones" in said
    assert "sum: all 1500 samples" in said
    assert code == 0
    made = swaps(live)
    assert [Path(s.model).name for s in made] == ["b.npz", "a.npz", "b.npz"]
    assert all(s.node == "dec" for s in made)
    assert sorted(s.time for s in made) == [s.time for s in made]


def test_a_run_that_was_moved_finds_its_models(live: Path, tmp_path: Path) -> None:
    shutil.copytree(live, tmp_path / "moved")
    assert all(Path(s.model).is_relative_to(tmp_path / "moved") for s in swaps(tmp_path / "moved"))


@pytest.mark.parametrize("what", ["a swap one sample later", "none"])
def test_swaps_elsewhere_are_another_run(live: Path, tmp_path: Path, what: str) -> None:
    shutil.copytree(live, tmp_path / "run")
    file = tmp_path / "run" / LOG
    if what == "none":
        file.unlink()
    else:
        first, *rest = file.read_text().splitlines()
        time = swaps(live)[0].time
        file.write_text("\n".join([first.replace(repr(time), repr(time + 1e-3)), *rest]) + "\n")
        assert swaps(tmp_path / "run")[0].time == time + 1e-3
    assert replayed(tmp_path / "run")[0] == DIFFERENT


def test_a_damaged_log_is_named(live: Path, tmp_path: Path) -> None:
    (tmp_path / LOG).write_text('{"node": "dec"}\n')
    with pytest.raises(StreamError, match=LOG):
        swaps(tmp_path)


def engine(tmp_path: Path, planned: list[Swap] | None = None) -> tuple[Engine, list[Block]]:
    """A ridge of gain 1, to be driven by hand, and what it gives."""
    got: list[Block] = []
    graph = Graph("g")
    graph.add("src", parse('nodes: {src: {type: "parts:Ramp"}}')["src"])
    graph.add("dec", Ridge(model=model(tmp_path / "a.npz", 1.0)), "src")
    graph.add("kal", Kalman(model=model(tmp_path / "k.npz", 1.0, Kalman)), "src")
    graph.add("ask", Swapper(node="dec", models=[]), "src")
    made = Engine(graph, taps={"dec": got.append}, folder=tmp_path, planned=planned or ())
    made.start()
    return made, got


def ones(a: int, b: int, segment: int = 0) -> Block:
    return Block(np.ones((b - a, 4), np.float32), np.arange(a, b) / 1000.0, a, segment)


def test_it_takes_effect_with_the_next_block(tmp_path: Path) -> None:
    made, got = engine(tmp_path)
    b = model(tmp_path / "b.npz", -3.0)
    made.push("src", ones(0, 5))
    made.here["ask"].node.tell({"swap": {"node": "dec", "model": b}})
    made.push("src", ones(5, 10))
    assert np.allclose(np.concatenate([g.data[:, 0] for g in got]), [1] * 5 + [-3] * 5)
    assert [g.seq for g in got] == [0, 5]
    assert swaps(tmp_path) == [Swap("dec", b, 0, 0.005)]


def test_samples_of_one_time_go_by_one_model(tmp_path: Path) -> None:
    """As of a device whose stamps are coarser than its rate: a swap between two of one time could not be replayed."""
    made, got = engine(tmp_path)
    b = model(tmp_path / "b.npz", -3.0)
    made.push("src", ones(0, 5))
    made.here["ask"].node.tell({"swap": {"node": "dec", "model": b}})
    times = np.array([0.004, 0.004])
    made.push("src", Block(np.ones((2, 4), np.float32), times, 5))
    made.push("src", Block(np.ones((2, 4), np.float32), np.array([0.004, 0.005]), 7))
    assert np.allclose(np.concatenate([g.data[:, 0] for g in got]), [1] * 8 + [-3])
    assert swaps(tmp_path) == [Swap("dec", b, 0, 0.005)]


def test_a_planned_one_takes_effect_at_its_sample_whatever_the_blocks(tmp_path: Path) -> None:
    b = model(tmp_path / "b.npz", -3.0)
    a = model(tmp_path / "a.npz", 1.0)
    plan = [Swap("dec", b, 0, 0.003), Swap("dec", a, 0, 0.008), Swap("dec", b, 2, 0.0)]
    made, got = engine(tmp_path, plan)
    made.push("src", ones(0, 10))
    made.push("src", ones(0, 3, segment=2))
    assert np.allclose(np.concatenate([g.data[:, 0] for g in got]), [1] * 3 + [-3] * 5 + [1] * 2 + [-3] * 3)
    assert [g.seq for g in got] == [0, 3, 8, 10]


@pytest.mark.parametrize(
    ("node", "file", "why"),
    [
        ("dec", "missing.npz", "missing.npz"),
        ("dec", "k.npz", "is of a 'kalman', this node is a 'ridge'"),
    ],
)
def test_what_does_not_suit_is_refused_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, node: str, file: str, why: str
) -> None:
    made, got = engine(tmp_path)
    made.here["ask"].node.tell({"swap": {"node": node, "model": str(tmp_path / file)}})
    assert why in caplog.text
    assert made.swapped == {"dec": {"swaps": 0, "refused": 1}}
    made.push("src", ones(0, 5))
    assert np.allclose(got[0].data, 1.0)


def test_a_network_takes_no_other_model_while_it_runs() -> None:
    """What it remembers is in its own terms, so that its refits would be made in vain: it is said before."""
    net = {"type": "sequence", "net": {"type": "lstm", "width": 4, "layers": 1}}
    for node in (DKF(f=net), Sequence(net=net["net"]), HiSS()):
        assert not node.replaceable
    assert DKF(f="ridge").replaceable and Ridge().replaceable
    running = Sequence(net=net["net"])
    running.name = "net"
    hand = Swaps.__new__(Swaps)
    hand.loop = SimpleNamespace(kernels=[running])  # type: ignore[assignment]
    with pytest.raises(StreamError, match="node 'net' takes no other model while it runs: restart the graph"):
        hand._fresh(0, "b.npz")


def test_what_is_counted_can_be_asked_for_while_a_swap_is_made(tmp_path: Path) -> None:
    """As from the thread that watches: a name is looked at just when the loop makes another decoder's first swap."""
    made, _ = engine(tmp_path)
    counts = made._swaps["dec"].made

    class Slow(str):
        def __hash__(self) -> int:
            counts.setdefault("kal", 1)
            return super().__hash__()

    counts[Slow("dec")] = 1
    del counts["kal"]
    assert made.swapped["dec"] == {"swaps": 1, "refused": 0}


def test_after_a_gap_it_starts_from_the_new_model(tmp_path: Path) -> None:
    X = np.random.default_rng(0).standard_normal((300, 4))
    wide = Kalman().fit(X, 100 * X[:, :2])
    wide.save(tmp_path / "wide.npz")
    made, _ = engine(tmp_path)
    kalman = made.here["kal"].node
    made.push("src", ones(0, 5))
    made.hear({"swap": {"node": "kal", "model": str(tmp_path / "wide.npz")}})
    made.push("src", ones(5, 6))
    missing = Block(np.full((1, 4), np.nan, np.float32), np.array([0.01]), 6, 1)
    made.push("src", missing)
    assert np.allclose(kalman.state.belief.Sigma, wide.arrays["S"])  # type: ignore[attr-defined]


def test_asked_outside_of_a_run_it_says_so() -> None:
    node = Swapper(node="dec", models=["x.npz"], every=1)
    node.start(Spec(rate=1, channels=("a",)))
    with pytest.raises(StreamError, match="outside of a run"):
        node.take(0, ones(0, 1))
