"""Who may come in: real sockets with right keys, wrong keys, none, and a crowd that never stops."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zmq

from rheobase.devices.zmq_in import ZmqIn
from rheobase.devices.zmq_out import ZmqOut
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.cli import main
from rheobase.stream.keys import key_pair, public_key, write_keys

SPEC = Spec(rate=1000, channels=("a", "b"), dtype="float32")


def block(k: int) -> Block:
    return Block(np.full((1, 2), k, np.float32), np.array([k / 1000]), k)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if done():
            return
        time.sleep(0.02)
    pytest.fail("it did not come to that")


class Pair:
    """A writer with keys, and the file names of its reader."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        for name in ("lab", "robot", "stranger"):
            write_keys(name, folder)
        self.file = lambda name: str(folder / name)
        self.address = f"tcp://{host}:{free_port()}"
        self.out = ZmqOut(address=self.address, keys=self.file("lab.key_secret"), peers=(self.file("robot.key"),))
        self.out.start(SPEC)
        self.k = 0

    def reader(self, keys: str = "robot.key_secret", server: str = "lab.key", wait: float = 10.0) -> ZmqIn:
        return ZmqIn(address=self.address, keys=self.file(keys), server=self.file(server), wait=wait)

    @staticmethod
    def first(source: ZmqIn) -> Block:
        """The first samples; before them the spec may come again."""
        return next(b for b in (source.receiver.receive(5) for _ in range(9)) if b is not None)

    def write(self, n: int, every: float = 0.002) -> None:
        for _ in range(n):
            self.out.take(0, block(self.k))
            self.k += 1
            time.sleep(every)


def test_keys_are_made_once_and_the_secret_is_for_its_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "lab", "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "lab.key_secret" in said
    assert os.stat(tmp_path / "lab.key_secret").st_mode & 0o777 == 0o600
    public, secret = key_pair(str(tmp_path / "lab.key_secret"))
    assert public_key(str(tmp_path / "lab.key")) == public
    assert zmq.curve_public(secret) == public
    before = (tmp_path / "lab.key_secret").read_bytes()
    assert main(["keys", "lab", "--folder", str(tmp_path)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "lab.key_secret").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "is not a key file"),
        (b"\xff\xfe" * 30, "is not a key file"),
        (b"x" * 20000, "longer than"),
        (b'curve\n    public-key = "short"\n', "is not a key file"),
    ],
)
def test_a_damaged_key_file_is_named(tmp_path: Path, text: bytes, says: str) -> None:
    (tmp_path / "bad.key").write_bytes(text)
    with pytest.raises(StreamError, match=f"bad.key .*{says}|bad.key {says}"):
        public_key(str(tmp_path / "bad.key"))


def test_wrong_sorts_of_key_files_are_told_apart(tmp_path: Path) -> None:
    write_keys("lab", tmp_path)
    with pytest.raises(StreamError, match="holds no secret key"):
        key_pair(str(tmp_path / "lab.key"))
    with pytest.raises(StreamError, match=r"none.key: No such file or directory \(`rheo keys NAME`"):
        public_key(str(tmp_path / "none.key"))
    (tmp_path / "lab.key_secret").chmod(0o644)
    with pytest.raises(StreamError, match="can be read by others: chmod 600"):
        key_pair(str(tmp_path / "lab.key_secret"))
    with pytest.raises(StreamError, match="keys: needs peers, too"):
        ZmqOut(address="tcp://127.0.0.1:5557", keys=str(tmp_path / "lab.key_secret")).check()
    with pytest.raises(StreamError, match="server: needs keys, too"):
        ZmqIn(address="tcp://127.0.0.1:5557", server=str(tmp_path / "lab.key")).check()


def test_who_is_known_gets_the_samples_and_who_is_not_is_counted_and_gets_none(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    for keys, server in (("stranger.key_secret", "lab.key"), ("robot.key_secret", "stranger.key")):
        refused = pair.out.health["refused"]
        with pytest.raises(StreamError, match=r"nothing came on .*does each side know the other's key"):
            pair.reader(keys, server, wait=0.5).start()
        until(lambda refused=refused: pair.out.health["refused"] > refused)  # type: ignore[misc]
    bare = zmq.Context.instance().socket(zmq.PULL)
    bare.connect(pair.address)
    refused = pair.out.health["refused"]
    until(lambda: pair.out.health["refused"] > refused)
    assert not bare.poll(100)
    bare.close(0)
    source = pair.reader()
    writing = threading.Thread(target=pair.write, args=(700,))  # the spec is said again every second
    writing.start()
    assert source.start() == SPEC
    got = pair.first(source)
    assert got.data[0, 0] == got.seq
    writing.join()
    source.stop()
    pair.out.stop()


def test_a_crowd_at_the_door_disturbs_nobody(tmp_path: Path) -> None:
    """Strangers with keys, without, and with noise that is no ZeroMQ at all, as fast as they can."""
    pair = Pair(tmp_path)
    source, ended = pair.reader(), threading.Event()
    writing = threading.Thread(target=pair.write, args=(1100,))
    writing.start()
    source.start()
    first = pair.first(source)

    def noise() -> None:
        host, port = pair.address.removeprefix("tcp://").split(":")
        while not ended.is_set():
            try:
                with socket.create_connection((host, int(port)), 1) as s:
                    s.sendall(b"GET / HTTP/1.1\r\n" + os.urandom(2000))
            except OSError:
                continue

    def strangers() -> None:
        context = zmq.Context()
        while not ended.is_set():
            s = context.socket(zmq.PUSH)
            s.connect(pair.address)
            with contextlib.suppress(zmq.Again):
                s.send(bytes(1000), zmq.DONTWAIT)
            s.poll(5)
            s.close(0)
        context.term()

    crowd = [threading.Thread(target=f) for f in (noise, strangers)]
    for t in crowd:
        t.start()
    got = [first]
    while writing.is_alive() or source.receiver.socket.poll(300):
        b = source.receiver.receive(0.1)
        if b is not None:
            got.append(b)
    ended.set()
    for t in crowd:
        t.join()
    seqs = [b.seq for b in got]
    assert seqs == list(range(seqs[0], pair.k)), "not one sample is missing or twice"
    assert pair.out.health["refused"] > 10
    source.stop()
    pair.out.stop()


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("ip") and shutil.which("unshare"))
    or subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True).returncode != 0,
    reason="needs a network namespace",
)
def test_beyond_loopback_with_keys(tmp_path: Path) -> None:
    """In a network namespace of its own, on an address that is not a loopback one."""
    code = (
        "import threading, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from test_keys import Pair, SPEC\n"
        "pair = Pair(Path(sys.argv[1]), '10.99.0.1'); source = pair.reader()\n"
        "threading.Thread(target=pair.write, args=(900,)).start()\n"
        "assert source.start() == SPEC; pair.first(source); print('came')\n"
    )
    run = f'ip link set lo up && ip addr add 10.99.0.1/32 dev lo && exec "{sys.executable}" -c "$0" "$1" "$2"'
    done = subprocess.run(
        ["unshare", "-rn", "sh", "-c", run, code, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "came" in done.stdout, done.stderr
