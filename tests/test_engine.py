"""One process: alignment by time, order of recorded sources, warm-up, pacing."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import Fail, Keep, Ramp, Recorded, Square, Sum

from rheobase.nodes.merge import Merge
from rheobase.stream import clock
from rheobase.stream.align import Align
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.engine import Engine, collect
from rheobase.stream.graph import Graph
from rheobase.stream.link import Receiver, Sender
from rheobase.stream.node import Node, Source


def split(times: np.ndarray, cuts: list[int]) -> list[Block]:
    edges = sorted({0, len(times), *(c % (len(times) + 1) for c in cuts)})
    return [Block(times[a:b, None], times[a:b], a) for a, b in itertools.pairwise(edges)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 100), max_size=5),
    st.lists(st.integers(0, 100), max_size=5),
    st.randoms(use_true_random=False),
)
def test_alignment_depends_on_times_and_not_on_arrival(cuts: list[int], cuts2: list[int], order: Any) -> None:
    """A driver at 100 Hz and a held stream at 30 Hz, in any order of arrival within the wait."""
    driver, held = np.arange(80) / 100, np.arange(24) / 30 + 0.003
    specs = [Spec(rate=100, channels=("a",)), Spec(rate=30, channels=("b",))]
    got: list[tuple[Block, Block]] = []
    align = Align(specs, lambda *x: got.append(x))
    queues = [split(driver, cuts), split(held, cuts2)]
    while queues[0] or queues[1]:
        i = order.choice([k for k in (0, 1) if queues[k]])
        align.taker(i)(queues[i].pop(0))
    align.finish()
    times = np.concatenate([x.times for x, _ in got])
    values = np.concatenate([h.data[:, 0] for _, h in got])
    at = np.searchsorted(held, driver, "right") - 1
    assert np.array_equal(times, driver)
    assert np.array_equal(values, np.where(at < 0, np.nan, held[at]), equal_nan=True)
    assert align.late == 0


def test_a_silent_input_is_held_after_its_wait_and_what_comes_late_is_counted() -> None:
    specs = [Spec(rate=10, channels=("a",)), Spec(rate=10, channels=("b",))]
    got: list[Any] = []
    align = Align(specs, lambda *x: got.append(x))
    align.taker(0)(Block(np.zeros((16, 1)), np.arange(16) / 10))
    done = sum(len(x) for x, _ in got)
    assert done == 6, "all that is a second behind the newest"
    assert np.isnan(got[0][1].data).all()
    align.taker(1)(Block(np.ones((5, 1)), np.arange(5) / 10))
    assert align.late == 5
    align.taker(0)(Block(np.zeros((10, 1)), np.arange(16, 26) / 10))
    assert sum(len(x) for x, _ in got) == 26, "silent for two seconds: it is waited for no more"
    align.taker(1)(Block(np.ones((1, 1)), np.array([2.4])))
    align.taker(0)(Block(np.zeros((1, 1)), np.array([2.6])))
    assert sum(len(x) for x, _ in got) == 26, "it has come again"
    align.ended(1)
    assert sum(len(x) for x, _ in got) == 27


def test_what_waits_for_an_irregular_input_goes_on_though_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [Spec(rate=0, channels=("a",)), Spec(rate=0, channels=("b",))]
    got: list[Any] = []
    align = Align(specs, lambda *x: got.append(x))
    align.taker(1)(Block(np.ones((1, 1)), np.array([4.9])))
    align.taker(0)(Block(np.zeros((1, 1)), np.array([5.0])))
    align.idle()
    assert not got
    monkeypatch.setattr(align, "came", align.came - 0.1)
    align.idle()
    assert len(got) == 1


def test_a_rare_event_is_waited_for_however_long_it_was_silent() -> None:
    specs = [Spec(rate=100, channels=("a",)), Spec(rate=0, channels=("b",))]
    got: list[Any] = []
    align = Align(specs, lambda *x: got.append(x))
    align.taker(1)(Block(np.ones((1, 1)), np.array([0.0])))
    align.taker(0)(Block(np.zeros((1001, 1)), np.arange(1001) / 100))
    align.taker(1)(Block(np.full((1, 1), 2.0), np.array([9.97])))
    align.idle()
    align.finish()
    assert align.late == 0
    held = np.concatenate([b.data[:, 0] for _, b in got])
    np.testing.assert_array_equal(held[[996, 997, 1000]], [1, 2, 2])


def test_an_input_that_runs_ahead_of_a_silent_first_one_is_kept_for_a_while_only() -> None:
    specs = [Spec(rate=10, channels=("a",)), Spec(rate=10, channels=("b",))]
    got: list[Any] = []
    align = Align(specs, lambda *x: got.append(x))
    for k in range(1000):
        align.taker(1)(Block(np.full((1, 1), k), np.array([k / 10])))
    assert len(align.held[0][0]) < 110
    align.taker(0)(Block(np.zeros((1, 1)), np.array([95.0])))
    assert got[0][1].data == 950


class Passes(Source):
    """10 s at 10 Hz, and then 10 s from `back` s before their end on."""

    shift: float = 0.0
    back: float = 15.0
    live = False

    def start(self) -> Spec:
        return Spec(rate=10, channels=("a",))

    def blocks(self) -> Iterator[Block]:
        for segment, begin in enumerate((100.0, 110.0 - self.back)):
            for k in range(100):
                t = begin + self.shift + k / 10
                yield Block(np.full((1, 1), 1000 * segment + t), np.array([t]), 100 * segment + k, segment)


def test_where_the_clock_of_all_is_set_back_each_pass_is_aligned_for_itself() -> None:
    """From the first sample after it on, what is held is of the same pass."""
    graph = Graph().add("a", Passes()).add("b", Passes(shift=0.02)).add("m", Merge(), ["a", "b"])
    got: list[Block] = []
    engine = Engine(graph, taps={"m": got.append})
    engine.start()
    engine.run()
    a, b = np.concatenate([g.data for g in got]).T
    assert len(a) == 200
    np.testing.assert_allclose((a - b)[np.r_[1:100, 101:200]], 0.08, atol=1e-9)
    assert np.isnan(b[[0, 100]]).all()


class Look(Node):
    """Keeps the shapes that process() sees."""

    def start(self, *inputs: Spec) -> Spec:
        self.seen: list[int] = []
        return inputs[0]

    def process(self, *x: Block) -> Block:
        self.seen.append(len(x[0]))
        return x[0]


def test_nothing_of_the_warm_up_is_left() -> None:
    graph = Graph()
    keep, look = Keep(), Look()
    graph.add("r", Recorded(n=10, block=5)).add("s", Sum(), "r").add("l", look, "s").add("k", keep, ["l", "s"])
    engine = Engine(graph)
    engine.start()
    assert look.seen == []
    engine.run()
    assert look.seen == [5, 5]
    assert [b.seq for i, b in keep.got if i == 0] == [0, 5]
    assert keep.got[-1][1].data[-1, 0] == np.arange(10).sum()
    assert engine.counts == {"r": 10, "s": 10, "l": 10, "k": 20}


def test_recorded_sources_come_in_order_of_time() -> None:
    graph = Graph()
    graph.add("fast", Recorded(n=100, block=7)).add("slow", Recorded(n=10, rate=100.0, block=3))
    graph.add("m", Merge(), ["fast", "slow"])
    got = collect(graph, ["m"])["m"]
    assert len(got) == 100
    assert np.array_equal(got.data[:, 4], np.arange(100) // 10)


class Events(Recorded):
    """The same, said to be irregular: nobody knows when the next is due."""

    def start(self, *inputs: Spec) -> Spec:
        return super().start(*inputs).replace(rate=0)


@pytest.mark.parametrize(("block", "other"), [(1, 1), (1000, 1), (7, 5), (1000, 1000), (1, 1000)])
def test_recorded_inputs_are_aligned_by_time_whatever_their_blocks(block: int, other: int) -> None:
    """An event in the midst of a block holds from its time on, and one through a node above from then on too."""
    graph = Graph().add("fast", Recorded(n=1000, block=block)).add("event", Events(n=8, rate=7.0, block=other))
    graph.add("m", Merge(), ["fast", "event"]).add("again", Merge(), ["fast", "m"])
    got = collect(graph, ["again"])["again"]
    times, events = np.arange(1000) / 1000, np.arange(8) / 7
    assert np.array_equal(got.times, times)
    assert np.array_equal(got.data[:, -1], np.searchsorted(events, times, "right") - 1)
    assert np.array_equal(got.data[:, 4], np.arange(1000))


def test_collect_refuses_what_is_live() -> None:
    graph = Graph().add("r", Ramp()).add("s", Square(), "r")
    with pytest.raises(StreamError, match="node 'r' is live"):
        collect(graph, ["s"])


def test_an_error_in_a_node_names_it_and_keeps_its_cause() -> None:
    graph = Graph().add("r", Recorded(n=200)).add("bad", Fail(at=100), "r")
    engine = Engine(graph)
    engine.start()
    with pytest.raises(StreamError, match=r"node 'bad' \(parts:Fail\): ValueError: on purpose") as e:
        engine.run()
    assert isinstance(e.value.__cause__, ValueError)


def test_samples_are_held_to_their_spec() -> None:
    """Half of an int16 is none: on an edge it would become one in silence."""

    class Half(Node):
        def process(self, x: Block) -> Block:  # type: ignore[override]
            return x.replace(data=x.data / 2)

    class Narrow(Recorded):
        def blocks(self) -> Iterator[Block | None]:
            yield Block(np.zeros((3, 2), np.float32), np.arange(3.0))

    specs = "says float32 of 4 channels"
    graph = Graph().add("r", Recorded(n=10)).add("h", Half(), "r")
    assert len(collect(graph, ["h"])["h"]) == 10, "float32 it stays"
    graph = Graph().add("r", Recorded(n=10)).add("s", Square(), "r").add("f", Fail(), "r")
    graph["s"].start = lambda x: x  # type: ignore[method-assign, assignment, misc]
    with pytest.raises(StreamError, match=rf"node 's' .*: gave float64 of shape \(1, 4\) with 1 times: .* {specs}"):
        collect(graph, ["s"])
    with pytest.raises(StreamError, match=rf"node 'n' .*: gave float32 of shape \(3, 2\) .* {specs}"):
        collect(Graph().add("n", Narrow()), ["n"])


def test_what_went_wrong_first_is_told() -> None:
    class Worse(Keep):
        def stop(self) -> None:
            raise RuntimeError("and that too")

    graph = Graph().add("r", Recorded(n=200)).add("bad", Fail(at=100), "r").add("k", Worse(), "bad")
    engine = Engine(graph)
    engine.start()
    with pytest.raises(StreamError, match="node 'bad'"):
        engine.run()


def test_a_recording_is_paced_and_cut_fine() -> None:
    graph = Graph().add("r", Recorded(n=300, block=300)).add("k", Keep(), "r")
    keep = graph["k"]
    engine = Engine(graph, speed=1.0)
    engine.start()
    begin = clock.now()
    engine.run()
    assert isinstance(keep, Keep)
    assert clock.now() - begin > 0.28
    assert max(len(b) for _, b in keep.got) <= 5
    assert np.array_equal(np.concatenate([b.data for _, b in keep.got])[:, 0], np.arange(300))


def test_live_sources_of_one_process_run_side_by_side() -> None:
    graph = Graph()
    graph.add("a", Ramp(n=150)).add("b", Ramp(n=20, rate=100.0)).add("k", Keep(), ["a", "b"])
    engine = Engine(graph)
    engine.start()
    engine.run()
    assert engine.counts == {"a": 150, "b": 20, "k": 170}
    assert engine.ages["k"].n == 170


def test_text_passes_and_is_held() -> None:
    specs = [Spec(rate=10, channels=("a",)), Spec(rate=0, channels=("m",), dtype="str")]
    got: list[Any] = []
    align = Align(specs, lambda *x: got.append(x))
    align.taker(1)(Block(np.array([["go"]], object), np.array([0.25])))
    align.taker(0)(Block(np.zeros((5, 1)), np.arange(5) / 10))
    align.finish()
    assert [str(w) for _, h in got for w in h.data[:, 0]] == ["", "", "", "go", "go"]


def test_channels_of_a_merge_are_told_apart() -> None:
    graph = Graph().add("a", Recorded(n=3)).add("b", Recorded(n=3)).add("m", Merge(), ["a", "b"])
    engine = Engine(graph)
    engine.start()
    assert engine.specs["m"].n == 8
    assert len(set(engine.specs["m"].channels)) == 8
    assert numbered("c", 2) == ("c0", "c1")


def test_what_an_edge_keeps_leaves_though_nothing_more_comes(tmp_path: Path) -> None:
    """A burst larger than the mark of a drop_oldest edge, then silence: the last of it arrives all the same."""
    address = f"ipc://{tmp_path}/e"
    engine = Engine(
        Graph().add("src", Burst()),
        senders=lambda name, spec, virtual: [Sender(address, spec, "drop_oldest", 3)],
        outward=["src"],
    )
    receiver = Receiver(address, "drop_oldest", 3)
    engine.start()
    running = threading.Thread(target=engine.run)
    running.start()
    seen = []
    until = clock.now() + 5
    while 39 not in seen and clock.now() < until:
        block = receiver.receive(0.1)
        seen += [] if block is None else [block.seq]
    engine.stop()
    running.join(10)
    assert 39 in seen
    for sender in engine.senders["src"]:
        sender.close()


class Burst(Ramp):
    """Forty blocks at once, then silence."""

    def blocks(self) -> Iterator[Block | None]:
        for k in range(40):
            yield Block(np.zeros((1, self.c), np.float32), np.array([k / 1000]), k)
        while True:
            time.sleep(0.05)
            yield None


def test_a_stream_whose_own_clock_was_set_back_goes_on_beside_the_others() -> None:
    """It does not wait for them to end; what comes a second late is nothing against that."""
    graph = Graph().add("a", Passes(back=0.0)).add("b", Passes(back=5.0))
    graph.add("k", Keep(), ["a", "b"])
    keep = graph["k"]
    engine = Engine(graph)
    engine.start()
    engine.run()
    assert isinstance(keep, Keep)
    order = [i for i, b in keep.got for _ in range(len(b))]
    last_of_a = max(n for n, i in enumerate(order) if i == 0)
    assert sum(i == 1 for i in order[:last_of_a]) >= 195
