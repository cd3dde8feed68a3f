"""Samples for and from programs outside, through a real socket and real runs."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from parts import Keep, Ramp

from rheobase.devices.zmq_in import ZmqIn
from rheobase.devices.zmq_out import ZmqOut
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.engine import Engine
from rheobase.stream.graph import Graph
from rheobase.stream.keys import write_keys
from rheobase.stream.link import Sender, unpack

SPEC = Spec(rate=1000, channels=("a", "b"), dtype="float32")


def test_one_graph_feeds_another(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/tap"
    keep = Keep()
    reader = Engine(Graph().add("tap", ZmqIn(address=address)).add("k", keep, "tap"))
    began = threading.Thread(target=reader.start)
    began.start()
    graph = Graph().add("src", Ramp(n=400, block=10))
    graph.add("out", ZmqOut(address=address), "src")
    writer = Engine(graph)
    writer.start()
    writing = threading.Thread(target=writer.run)
    writing.start()
    began.join(10)
    reader.run()
    writing.join(10)
    assert reader.specs["tap"] == writer.specs["src"]
    data = np.concatenate([b.data for _, b in keep.got])
    assert data.dtype == np.float32
    assert np.array_equal(data[:, 0], np.arange(400))
    assert reader.counts["tap"] == 400


def test_nobody_listening_holds_up_nothing_and_who_comes_late_hears_the_spec(tmp_path: Path) -> None:
    node = ZmqOut(address=f"ipc://{tmp_path}/tap", keep=5)
    node.start(SPEC)
    for k in range(50):
        node.take(0, Block(np.full((1, 2), k, np.float32), np.array([k / 1000]), k))
    reader = zmq.Context.instance().socket(zmq.PULL)
    reader.connect(node.address)
    node.said = -1e9  # a second has passed
    assert node.sender._socket.poll(5000, zmq.POLLOUT)
    frames = []
    for k in (50, 51):
        node.take(0, Block(np.full((1, 2), k, np.float32), np.array([k / 1000]), k))
        while reader.poll(300):
            frames.append(unpack(reader.recv()))
    assert SPEC in [f.spec for f in frames]
    samples = [f.block.seq for f in frames if f.block is not None]
    assert samples[-1] == 51
    assert len(samples) <= 6, "what nobody took was dropped, the oldest first"
    reader.close()
    node.stop()


def test_a_port_in_use_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StreamError, match=rf"cannot open tcp://127.0.0.1:{port}: the port is in use"):
            ZmqOut(address=f"tcp://127.0.0.1:{port}").start(SPEC)


@pytest.mark.parametrize("address", ["tcp://*:5557", "tcp://10.0.0.1:5557", "tcp://[2001:db8::1]:5557"])
@pytest.mark.parametrize(("kind", "peer"), [(ZmqIn, "server"), (ZmqOut, "peers")])
def test_an_address_beyond_this_machine_is_refused_before_anything_opens(kind: type, peer: str, address: str) -> None:
    with pytest.raises(StreamError, match=rf"address: .* leaves this machine, which needs keys and {peer}: `rheo keys"):
        kind(address=address).check()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1", "inproc://x", "5557", "tcp://127.0.0.1:0", "tcp://h:99999"])
@pytest.mark.parametrize("kind", [ZmqIn, ZmqOut])
def test_what_is_no_address_is_refused(kind: type, address: str) -> None:
    with pytest.raises(StreamError, match="address: "):
        kind(address=address).check()


def test_silence_is_an_error_with_the_address(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"nothing came on ipc://.*/tap within 0.2 s"):
        ZmqIn(address=f"ipc://{tmp_path}/tap", wait=0.2).start()


def test_a_damaged_frame_is_an_error_with_the_address(tmp_path: Path) -> None:
    node = ZmqOut(address=f"ipc://{tmp_path}/tap")
    node.start(SPEC)
    source = ZmqIn(address=node.address)
    node.said = -1e9
    begun = threading.Timer(0.2, lambda: node.take(0, Block(np.zeros((1, 2), np.float32), np.zeros(1))))
    begun.start()
    assert source.start() == SPEC
    begun.join()
    node.sender._socket.send(b"RHEO of no use" + bytes(40))
    with pytest.raises(StreamError, match=r"edge ipc://.*/tap: frame is not of this format"):
        list(source.blocks())
    source.stop()
    node.stop()


SENDER = """
import sys, time, numpy as np
from rheobase.stream.block import Block, Spec
from rheobase.stream.keys import Door
from rheobase.stream.link import Sender
address, rate, *keys = sys.argv[1:]
door = Door(keys[0], keys[1:]) if keys else None
sender = Sender(address, Spec(rate=float(rate), channels=("a",)), door=door)
for k in range(20):
    sender.send(Block(np.zeros((1, 1)), np.array([time.monotonic()]), k))
sys.stdin.read()
"""


@pytest.fixture
def begun() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a sender in another process: 20 samples, then silence."""
    children = []

    def begin(*about: object) -> subprocess.Popen[bytes]:
        children.append(subprocess.Popen([sys.executable, "-c", SENDER, *map(str, about)], stdin=subprocess.PIPE))
        return children[-1]

    yield begin
    for p in children:
        p.kill()
        p.wait()


def until(source: ZmqIn, done: Callable[[list[Block]], bool]) -> list[Block]:
    """What comes until it is enough."""
    got: list[Block] = []
    end = time.monotonic() + 30
    for block in source.blocks():
        assert time.monotonic() < end, f"{source.state}, {got}"
        if block is not None:
            got.append(block)
        if done(got):
            break
    return got


def test_missing_samples_are_counted_from_the_first_that_came(tmp_path: Path) -> None:
    source = ZmqIn(address=f"ipc://{tmp_path}/tap")
    sending = threading.Thread(target=lambda: senders.append(Sender(source.address, SPEC)))
    senders: list[Sender] = []
    sending.start()
    source.start()
    assert source.health == {"missing": 0, "gaps": 0}
    sending.join(10)
    for seq in (100, 110, 150, 160, 175):
        senders[0].send(Block(np.zeros((10, 2), np.float32), seq / 1000 + np.arange(10) / 1000, seq))
    senders[0].end()
    got = [b for b in source.blocks() if b is not None]
    source.stop()
    senders[0].close()
    assert [b.seq for b in got] == [100, 110, 150, 160, 175]
    assert source.health == {"missing": 35, "gaps": 2}


def test_a_sender_that_is_killed_is_said(tmp_path: Path, begun: Any, caplog: Any) -> None:
    source = ZmqIn(address=f"ipc://{tmp_path}/tap")
    source.name = "in"
    p = begun(source.address, 100)
    source.start()
    assert source.state == "connecting"
    until(source, lambda got: len(got) == 20)
    assert source.state == "live"
    os.kill(p.pid, signal.SIGKILL)
    with caplog.at_level(logging.WARNING):
        until(source, lambda got: source.state == "stale")
        until(source, lambda got: source.state == "lost")
    assert [r.getMessage() for r in caplog.records if r.name == "rheobase"] == [
        f"in: stream of {source.address} is stale",
        f"in: nothing comes from {source.address}; waiting for it",
    ]
    begun(source.address, 100)
    [again] = until(source, lambda got: len(got) == 1)
    source.stop()
    assert (again.seq, again.segment, source.state) == (0, 1, "live")
    assert source.health == {"missing": 0, "gaps": 1}


@pytest.mark.parametrize("keys", [False, True])
def test_an_irregular_stream_is_lost_with_its_connection_only(
    tmp_path: Path, begun: Any, keys: bool, caplog: Any
) -> None:
    lab, robot = ([str(p) for p in write_keys(name, tmp_path)] for name in ("lab", "robot"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    known = {"keys": robot[1], "server": lab[0]} if keys else {}
    source = ZmqIn.make(address=address, lost=1.0, **known)
    p = begun(address, 0, *([lab[1], robot[0]] if keys else []))
    source.start()
    until(source, lambda got: len(got) == 20)
    end = time.monotonic() + 3
    until(source, lambda got: time.monotonic() > end)
    assert source.state == "live" and not caplog.records
    p.kill()
    with pytest.raises(StreamError, match=rf"stream of {address} has been gone for 1\.\d s"):
        until(source, lambda got: False)
    source.stop()


def test_two_inputs_need_two_addresses(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="takes one input, got 2"):
        ZmqOut(address=f"ipc://{tmp_path}/tap").start(SPEC, SPEC)
