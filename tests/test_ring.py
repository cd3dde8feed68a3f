"""Edges in shared memory: what those by ZeroMQ are held to, and what only a ring can get wrong."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_link import SPEC, blocks, drain

from rheobase.stream import ring as ring_module
from rheobase.stream.block import DTYPES, Block, Spec, StreamError
from rheobase.stream.graph import parse
from rheobase.stream.link import Receiver, Sender, pack_spec
from rheobase.stream.parent import far_edges
from rheobase.stream.ring import Ring, able
from rheobase.stream.run import run
from rheobase.stream.shared import RingReceiver, RingSender

pytestmark = pytest.mark.skipif(not able(), reason="needs Linux on x86-64")
Ends = Callable[..., tuple[Sender, Receiver]]


def by_socket(folder: Path, spec: Spec = SPEC, **more: Any) -> tuple[Sender, Receiver]:
    receiver = Receiver(f"ipc://{folder}/e")
    return Sender(f"ipc://{folder}/e", spec, **more), receiver


def by_ring(folder: Path, spec: Spec = SPEC, **more: Any) -> tuple[Sender, Receiver]:
    sender = RingSender(f"shm://{folder}/e", f"{folder}/bell", spec, **more)
    return sender, RingReceiver(f"shm://{folder}/e", f"{folder}/bell")


both = pytest.mark.parametrize("ends", [by_socket, by_ring])


@both
def test_block_loses_nothing_and_keeps_the_bits(tmp_path: Path, ends: Ends) -> None:
    sender, receiver = ends(tmp_path)
    assert receiver.wait_spec(5) == SPEC
    sent = blocks(5000, 3)

    def send() -> None:
        for b in sent:
            sender.send(b)
        sender.end()

    thread = threading.Thread(target=send)
    thread.start()
    while not sender.waits and thread.is_alive():  # nobody reads until the high-water mark is met
        time.sleep(0.01)
    got = drain(receiver)
    thread.join()
    assert sender.waits > 0
    assert (receiver.received, receiver.dropped, receiver.gaps, sender.sent) == (15000, 0, 0, 15000)
    assert b"".join(b.data.tobytes() for b in got) == b"".join(b.data.tobytes() for b in sent)
    assert b"".join(b.times.tobytes() for b in got) == b"".join(b.times.tobytes() for b in sent)
    assert not got[0].data.flags.writeable, "as over a socket: what is compiled is compiled for that"


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_any_layout(tmp_path: Path, ends: Ends, dtype: str) -> None:
    spec = Spec(rate=0, channels=("a", "b"), dtype=dtype)
    sender, receiver = ends(tmp_path, spec)
    receiver.wait_spec(5)
    rng = np.random.default_rng(0)
    x = np.array([["ä", ""], ["b" * 70, "c"]], object) if dtype == "str" else rng.integers(0, 99, (2, 4)).astype(dtype)
    x = x if dtype == "str" else x[:, ::2]
    sender.send(Block(x, np.array([1.0, 2.0, 3.0, 4.0])[::2], 0, 2))
    sender.send(Block(x[:0], np.empty(0), 2, 2))
    got = receiver.receive(5)
    assert got is not None
    assert np.array_equal(got.data, x) and got.data.dtype == x.dtype
    assert (got.times.tolist(), got.segment) == ([1.0, 3.0], 2)


@both
def test_a_sender_gives_up_when_its_reader_is_gone(tmp_path: Path, ends: Ends) -> None:
    gone = threading.Event()
    sender, receiver = ends(tmp_path, give_up=gone.is_set)
    receiver.wait_spec(5)
    receiver.close()
    gone.set()
    for b in blocks(5000, 8):
        sender.send(b)
    assert sender.lost > 0
    sender.close()


@both
def test_a_sender_that_begins_anew_opens_a_segment(tmp_path: Path, ends: Ends) -> None:
    sender, receiver = ends(tmp_path)
    receiver.wait_spec(5)
    sender.send(blocks(2)[1])
    first = receiver.receive(1)
    sender.send(blocks(1)[0])
    second = receiver.receive(1)
    assert first is not None
    assert second is not None
    assert (receiver.dropped, receiver.gaps) == (1, 2)
    assert second.segment == first.segment + 1


@both
def test_silence_is_said(tmp_path: Path, ends: Ends) -> None:
    _, receiver = ends(tmp_path)
    receiver.wait_spec(5)
    assert receiver.receive(0.01) is None
    assert not receiver.pending(5)
    with pytest.raises(StreamError, match="stopped before anything came"):
        Receiver(f"ipc://{tmp_path}/none").wait_spec(5, lambda: True)


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(0, 3000), max_size=60), seed=st.integers(0, 9))
def test_messages_of_any_size_come_whole_and_in_order(tmp_path_factory: Any, sizes: list[int], seed: int) -> None:
    """In a ring of a page, so that they wrap, wait, and are larger than all of it; read now and then."""
    folder = tmp_path_factory.mktemp("ring")
    before, ring_module.SIZE = ring_module.SIZE, 1 << 10
    hot, ring_module.HOT = ring_module.HOT, 1 << 8
    try:
        writer, reader = (Ring(f"{folder}/r", f"{folder}/b") for _ in range(2))
    finally:
        ring_module.SIZE = before
    rng = np.random.default_rng(seed)
    sent = [rng.bytes(n) for n in sizes]
    thread = threading.Thread(target=lambda: [writer.write((m[:5], m[5:]), lambda: False) for m in sent])
    thread.start()
    got: list[bytes] = []
    try:
        while len(got) < len(sent):
            message = reader.read()
            if message is not None:
                got.append(message)
            if rng.integers(0, 9) == 0:
                time.sleep(1e-4)
    finally:
        ring_module.HOT = hot
        thread.join()
    assert got == sent


WRITER = """
import sys, numpy as np
from rheobase.stream.block import Block, Spec
from rheobase.stream.shared import RingSender
spec = Spec(rate=1000, channels=("a", "b"), dtype="float32")
sender = RingSender("shm://" + sys.argv[1], sys.argv[2], spec)
k = 0
while True:
    sender.send(Block(np.full((3, 2), k, np.float32), np.arange(3.0) + 3 * k, 3 * k))
    k += 1
"""


def test_what_a_killed_writer_wrote_is_read_to_its_last_message(tmp_path: Path) -> None:
    for attempt in range(5):
        ring, bell = f"{tmp_path}/r{attempt}", f"{tmp_path}/b"
        receiver = RingReceiver(f"shm://{ring}", bell)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, ring, bell])
        receiver.wait_spec(20)
        got = 0
        while got < 3000 * (attempt + 1):
            got += len(receiver.receive(1.0) or ())
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        while (block := receiver.receive(0.05)) is not None:
            assert (block.data == block.seq // 3).all()
        assert receiver.gaps == receiver.dropped == 0


def test_a_reader_that_comes_after_another_died_goes_on_where_it_was(tmp_path: Path) -> None:
    sender, receiver = by_ring(tmp_path)
    receiver.wait_spec(5)
    for b in blocks(10):
        sender.send(b)
    for _ in range(4):
        receiver.receive(1)
    other = RingReceiver(f"shm://{tmp_path}/e", f"{tmp_path}/bell", receiver.counts, (SPEC, False))
    rest = [other.receive(0.1) for _ in range(6)]
    assert [b.seq for b in rest if b] == [4, 5, 6, 7, 8, 9]
    assert {b.segment for b in rest if b} == {1}, "what the one before did with its last samples, nobody knows"
    assert (other.received, other.dropped) == (10, 0)


def test_noise_in_a_ring_is_an_error_with_the_name_of_the_edge(tmp_path: Path) -> None:
    sender, receiver = by_ring(tmp_path)
    receiver.wait_spec(5)
    assert isinstance(sender, RingSender)
    sender.ring.write((b"RHEO of no use" + bytes(40),), lambda: False)
    with pytest.raises(StreamError, match=r"edge shm://.*/e: frame is not of this format"):
        receiver.receive(1)
    sender.ring._put(sender.ring._slots[0], (1 << 60).to_bytes(8, "little"))
    sender.ring._slots[0] += 64
    with pytest.raises(StreamError, match=r"edge shm://.*/e: a message of 1152921504606846976 bytes"):
        receiver.receive(1)
    assert pack_spec(SPEC)


def test_memory_that_a_late_reader_took_is_given_back(tmp_path: Path) -> None:
    writer, reader = (Ring(f"{tmp_path}/r", f"{tmp_path}/b") for _ in range(2))
    sent = [bytes([k]) * 300_000 for k in range(50)]
    for m in sent:
        assert writer.write((m,), lambda: True)
    assert os.stat(tmp_path / "r").st_blocks * 512 > 2 * ring_module.FAR
    assert [reader.read() for _ in sent] == sent
    for m in sent:
        assert writer.write((m,), lambda: True)
        assert reader.read() == m
    assert os.stat(tmp_path / "r").st_blocks * 512 < 2 * ring_module.HOT + 2 * len(sent[0])


def test_where_no_ring_fits_edges_go_by_zeromq(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        assert not able()
        report = run(parse(TEXT.format(edge="''")), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert report.ok and report.samples["two"] == 3000
    assert able()


TEXT = """
name: t
nodes:
  src:  {{type: "parts:Ramp", n: 3000, rate: 4000, process: acquire}}
  two:  {{type: "parts:Square", in: {{from: src, edge: {edge}}}}}
  keep: {{type: "parts:Keep", in: [{{from: src, edge: {edge}}}, {{from: two, edge: {edge}}}], process: sink}}
"""


def test_which_edges_are_rings() -> None:
    """Those into a process of which none drops, and none is asked to be another."""
    for what, rings in (("policy: block", 5), ("policy: latest", 3), ("edge: zmq", 3)):
        view = f"  view: {{type: 'parts:Keep', in: [{{from: two, {what}}}, src], process: view}}\n"
        found = far_edges(parse(TEXT.format(edge="''") + view), "ipc://home/")
        assert len(found) == 5
        assert [e["target"] for e in found if e["ring"]] == ["two", "keep", "keep", "view", "view"][:rings]


@pytest.mark.parametrize("edge", ["shm", "zmq"])
def test_a_run_is_the_same_by_either(tmp_path: Path, edge: str) -> None:
    report = run(parse(TEXT.format(edge=edge)), tmp_path)
    assert report.ok
    assert report.samples == {"src": 3000, "two": 3000, "keep": 6000}
    again = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert again["nodes"]["two"]["in"][0]["edge"] == edge
    k = np.arange(3000.0)
    assert np.loadtxt(tmp_path / "keep.txt").sum() == k.sum() + (k**2).sum()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{from: src, edge: smh}", r"unknown edge 'smh'; did you mean 'shm'\?"),
        ("{from: src, edge: shm, policy: latest}", "edge: shm cannot be: its policy drops"),
    ],
)
def test_what_is_wrong_with_an_edge_is_said(given: str, says: str) -> None:
    text = f'name: t\nnodes:\n  src: {{type: "parts:Ramp", process: a}}\n  k: {{type: "parts:Keep", in: {given}}}\n'
    with pytest.raises(StreamError, match=says):
        run(parse(text))
