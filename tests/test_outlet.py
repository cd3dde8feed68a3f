"""What outlets say when nothing comes any more, heard by a real reader."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pylsl
import pytest
from parts import Fail, Ramp

from rheobase.devices.lsl_out import LslOut
from rheobase.devices.zmq_out import ZmqOut
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.clock import now
from rheobase.stream.engine import Engine
from rheobase.stream.graph import Graph
from rheobase.stream.link import Receiver

SPEC = Spec(rate=1000, channels=("x", "y"), dtype="float32")


def block(k: int, n: int = 1) -> Block:
    return Block(np.full((n, 2), k + 1, np.float32), now() + np.arange(n) / 1000, k)


class Reader:
    """Everything that comes, and when it came."""

    def __init__(self, address: str) -> None:
        self.receiver = Receiver(address)
        self.got: list[tuple[float, Block]] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        while not self.receiver.ended:
            b = self.receiver.receive(0.05)
            if b is not None:
                self.got.append((now(), b))

    def wait(self, n: int, last: float | None = None) -> None:
        """Until n blocks have come, and the second channel of the newest is `last`."""
        end = now() + 20
        while len(self.got) < n or last not in (None, self.got[-1][1].data[0, 1]):
            assert now() < end, f"{len(self.got)} came, not {n}"
            time.sleep(0.005)


def test_silence_is_held_then_safe_and_samples_take_over_again(tmp_path: Path) -> None:
    node = ZmqOut(address=f"ipc://{tmp_path}/o", hold=0.15, safe=(0.0, -1.0))
    node.start(SPEC)
    reader = Reader(node.address)
    reader.wait(1)  # before anything came it is safe already
    for k in range(3):
        node.take(0, block(k))
    last = node.last
    reader.wait(5, last=-1)
    node.take(0, block(3))
    reader.wait(6, last=4)
    node.stop()
    reader.thread.join(10)
    blocks = [b for _, b in reader.got]
    safe = [k for k, b in enumerate(blocks) if b.data[0, 1] == -1]
    real = [k for k, b in enumerate(blocks) if k not in safe]
    assert [blocks[k].data[0, 0] for k in real] == [1, 2, 3, 4]
    assert {tuple(blocks[k].data[0]) for k in safe} == {(0, -1)}
    assert min(k for k in safe if k > real[0]) == real[2] + 1
    assert reader.got[real[2] + 1][1].times[0] >= last + 0.15, "not before it was held"
    assert safe[-1] == len(blocks) - 1, "the last word is safe"
    assert [b.seq for b in blocks] == list(range(blocks[0].seq, blocks[0].seq + len(blocks))), "nothing is missing"
    changes = [(a, b) for a, b in itertools.pairwise(blocks) if (a.data[0, 1] == -1) != (b.data[0, 1] == -1)]
    assert len(changes) == 4
    assert all(b.segment == a.segment + 1 for a, b in changes), "what is made up has a segment of its own"
    assert node.health["safe"] == 2


def test_a_reader_that_is_behind_at_the_end_hears_what_is_safe(tmp_path: Path) -> None:
    node = ZmqOut(address=f"ipc://{tmp_path}/o", hold=0.0, safe=0.0, keep=8)
    node.start(SPEC)
    receiver, got = Receiver(node.address), []
    receiver.wait_spec(10)
    for k in range(20_000):  # more than lies on the way
        node.take(0, block(k))

    def late() -> None:
        time.sleep(0.6)
        while not receiver.ended:
            if (b := receiver.receive(0.05)) is not None:
                got.append(b.data[0].tolist())

    reader = threading.Thread(target=late, daemon=True)
    reader.start()
    node.stop()
    reader.join(10)
    assert got[-1] == [0, 0]
    assert 0 < node.health["untaken"] < 20_000
    assert len(got) + node.health["untaken"] >= 20_001


def test_what_nobody_came_for_is_untaken(tmp_path: Path) -> None:
    """Also what still waits for a reader when the outlet closes."""
    node = ZmqOut(address=f"ipc://{tmp_path}/o", keep=8)
    node.start(SPEC)
    for k in range(0, 50, 5):
        node.take(0, block(k, 5))
    node.stop()
    assert node.health["untaken"] == 50


def test_without_safe_nothing_is_made_up(tmp_path: Path) -> None:
    node = ZmqOut(address=f"ipc://{tmp_path}/o", hold=0.0)
    node.start(SPEC)
    reader = Reader(node.address)
    for k in range(20):
        node.take(0, block(k))
        time.sleep(0.02)
    node.stop()
    reader.thread.join(10)
    assert [b.data[0, 0] for _, b in reader.got] == list(range(1, 21))


@pytest.mark.parametrize("fails", [False, True])
def test_the_end_of_a_run_is_safe_whatever_ended_it(tmp_path: Path, fails: bool) -> None:
    out = ZmqOut(address=f"ipc://{tmp_path}/o", hold=0.1, safe=0.0)
    graph = Graph().add("src", Ramp(n=300)).add("f", Fail(at=200 if fails else 1000), "src").add("out", out, "f")
    engine = Engine(graph)
    engine.start()
    reader = Reader(out.address)
    reader.wait(1)
    if fails:
        with pytest.raises(StreamError, match="on purpose"):
            engine.run()
    else:
        engine.run()
    reader.thread.join(10)
    assert reader.got[-1][1].data.tolist() == [[0, 0, 0, 0]]
    assert max(b.data[0, 0] for _, b in reader.got) == (199 if fails else 299)


@pytest.mark.parametrize("late", [False, True])
def test_who_stands_in_holds_from_the_last_sample_on(tmp_path: Path, late: bool) -> None:
    """hold is 3 s and over already: it would take longer than the reader waits. late: the reader comes afterwards."""
    node = ZmqOut(address=f"ipc://{tmp_path}/o", hold=3, safe=-1)
    node.name = "out"
    reader = None if late else Receiver(node.address)
    other = node.stand_in(Spec(rate=100, channels=("a",)), now() - 3)
    try:
        if reader is None:
            while not other._extra:
                time.sleep(0.01)
            assert other.sender._late, "nobody was there to take it"
            reader = Receiver(node.address)
        end, block = now() + 2.5, None
        while block is None and now() < end:
            block = reader.receive(0.1)
        assert block is not None and block.data[0, 0] == -1
    finally:
        other.stop()
        if reader:
            reader.close()


def test_an_lsl_outlet_goes_safe(tmp_path: Path) -> None:
    node = LslOut(stream=f"safe {tmp_path.name}", hold=0.1, safe=(7.0, 8.0))
    node.start(SPEC)
    [info] = pylsl.resolve_byprop("name", node.stream, 1, 20)
    inlet: Any = pylsl.StreamInlet(info)
    inlet.open_stream(10)
    node.take(0, block(0))
    got = [inlet.pull_sample(10)[0]]
    while got[-1] != [7, 8] or [1, 1] not in got:
        got.append(inlet.pull_sample(10)[0])
    assert node.health["safe"] == 1
    node.stop()


@pytest.mark.parametrize(
    ("safe", "spec", "says"),
    [
        ((1.0,), SPEC, "safe: has 1 values for 2 channels"),
        (0.5, SPEC.replace(dtype="int16"), "safe: .* is not of int16"),
        (0.0, SPEC.replace(dtype="str"), "safe: is a number, and the stream is text"),
    ],
)
def test_a_safe_value_that_does_not_suit_is_refused(tmp_path: Path, safe: Any, spec: Spec, says: str) -> None:
    with pytest.raises(StreamError, match=says):
        ZmqOut(address=f"ipc://{tmp_path}/o", safe=safe).start(spec)


def test_hold_is_bounded_since_a_run_waits_for_it_to_end() -> None:
    with pytest.raises(StreamError, match="hold: "):
        ZmqOut.make(address="ipc://x", hold=60)
