"""Keys for sockets that leave this machine: CurveZMQ (RFC 26), which encrypts, and proves both ends to each other.

A pair of keys is two files, in the format of ZeroMQ's own tools (RFC 24, Z85): NAME.key may be given away,
NAME.key_secret stays, and nobody else may read it. Who binds a socket lists the .key files of those who may connect;
who connects names the .key file of the one that binds. Both give their own .key_secret.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import zmq
import zmq.auth
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from rheobase.stream.block import StreamError

LARGEST = 1 << 14
"""bytes: a longer file holds no key."""
HANDSHAKE = 2000
"""ms after which a peer that does not finish its handshake is cut off."""
CROWD = 64
"""Connections that may wait to be taken in."""

FAILED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
UNDERSTOOD = zmq.EVENT_HANDSHAKE_SUCCEEDED

LOOPBACK = re.compile(r"tcp://(127\.\d+\.\d+\.\d+|localhost|\[::1\]):(?P<port>\d+)|ipc://.+")
FAR = re.compile(r"tcp://[^/\s:]+:(?P<port>\d+)|tcp://\[[0-9a-fA-F:]+\]:(?P<port6>\d+)")


def write_keys(name: str, folder: Path = Path()) -> tuple[Path, Path]:
    """Make NAME.key and NAME.key_secret. Raises StreamError where one is there already: a key is not replaced."""
    public, secret = zmq.curve_keypair()
    texts = (
        (folder / f"{name}.key", f'curve\n    public-key = "{public.decode()}"\n', 0o644),
        (
            folder / f"{name}.key_secret",
            f'curve\n    public-key = "{public.decode()}"\n    secret-key = "{secret.decode()}"\n',
            0o600,
        ),
    )
    for path, _, _ in texts:
        if path.exists():
            raise StreamError(f"{path} is there already: take another name, or remove both files of the pair")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text, mode in texts:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            try:
                os.write(file, text.encode())
            finally:
                os.close(file)
    except OSError as e:
        raise StreamError(f"{e.filename or folder}: {e.strerror}") from None
    return texts[0][0], texts[1][0]


def public_key(path: str) -> bytes:
    """The key in a .key file, or the public one of a .key_secret. Raises StreamError."""
    return _load(path)[0]


def key_pair(path: str) -> tuple[bytes, bytes]:
    """Public and secret key of a .key_secret file. Raises StreamError, also where others may read the file."""
    public, secret = _load(path)
    if secret is None:
        raise StreamError(f"{path} holds no secret key: give the .key_secret file")
    if os.stat(path).st_mode & 0o077:
        raise StreamError(f"{path} can be read by others: chmod 600 {path}")
    return public, secret


def _load(path: str) -> tuple[bytes, bytes | None]:
    try:
        if os.path.getsize(path) > LARGEST:
            raise StreamError(f"{path} is not a key file: it is longer than {LARGEST} bytes")
        public, secret = zmq.auth.load_certificate(path)
        keys = [k for k in (public, secret) if k is not None]
        if any(len(k) != 40 or len(z85.decode(k)) != 32 for k in keys):
            raise ValueError("not a key of 40 characters")
    except StreamError:
        raise
    except OSError as e:
        raise StreamError(f"{path}: {e.strerror or e} (`rheo keys NAME` makes a pair)") from None
    except Exception as e:  # noqa: BLE001 what a damaged file makes the parser raise has no end
        raise StreamError(f"{path} is not a key file: {e} (`rheo keys NAME` makes a pair)") from None
    return public, secret


def check_address(address: str, keys: str, peers: Collection[str], peer_key: str) -> None:
    """Refuse an address that leaves this machine where keys are missing. Raises StreamError.

    peer_key: the parameter that names the other side's key.
    """
    found = LOOPBACK.fullmatch(address)
    far = FAR.fullmatch(address) if not found else None
    if not found and not far:
        raise StreamError(
            f"address: {address!r} is not tcp://127.0.0.1:PORT, ipc://PATH or, with keys, tcp://HOST:PORT"
        )
    groups = (found or far).groupdict()  # type: ignore[union-attr]
    port = next((p for p in groups.values() if p), 1)
    if int(port) not in range(1, 1 << 16):  # ZeroMQ takes larger ones, modulo 2^16
        raise StreamError(f"address: {address!r}: a port is a number from 1 to 65535")
    if far and not (keys and peers):
        missing = " and ".join(w for w, there in (("keys", keys), (peer_key, peers)) if not there)
        raise StreamError(
            f"address: {address!r} leaves this machine, which needs {missing}: "
            "`rheo keys NAME` makes a pair (tcp://127.0.0.1:PORT and ipc://PATH need none)"
        )
    if bool(keys) != bool(peers):
        given, other = ("keys", peer_key) if keys else (peer_key, "keys")
        raise StreamError(f"{given}: needs {other}, too: both ends must know each other")
    if keys:
        key_pair(keys)
    for path in peers:
        public_key(path)


class Door:
    """A ZeroMQ context of its own whose one socket talks only to those whose keys are known.

    `refused` counts connections that never came to an understanding: no keys, wrong keys, not ZeroMQ at all. A peer
    that tries again and again is counted each time; one that is at its handshake just now counts until it is done.
    """

    def __init__(self, keys: str, peers: Sequence[str]) -> None:
        self.public, self.secret = key_pair(keys)
        self.peers = [public_key(p) for p in peers]
        self.refused = 0
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._zap = self.context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self._monitors: list[zmq.Socket[bytes]] = []
        self._known = {z85.decode(k) for k in self.peers}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def guard(self, socket: zmq.Socket[bytes], binds: bool) -> None:
        """Put the keys on a socket of this context, before it binds or connects."""
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret
        socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE)
        socket.set(zmq.BACKLOG, CROWD)
        if binds:
            socket.curve_server = True
            socket.zap_domain = b"rheobase"
        else:
            socket.curve_serverkey = self.peers[0]
        # of a connection that talks nothing like ZeroMQ no failed handshake is told, only that it was there
        self._monitors.append(socket.get_monitor_socket(zmq.EVENT_ACCEPTED | UNDERSTOOD if binds else FAILED))
        self._thread = threading.Thread(target=self._watch, name="door", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        """Answer who may come in (ZAP, RFC 27), and count who may not."""
        poller = zmq.Poller()
        for s in (self._zap, *self._monitors):
            poller.register(s, zmq.POLLIN)
        try:
            while not self._closed.is_set():
                for s, _ in poller.poll(100):
                    if s is self._zap:
                        self._zap.send_multipart(self._answer(self._zap.recv_multipart()))
                    else:
                        event = parse_monitor_message(s.recv_multipart())["event"]
                        self.refused += -1 if event == UNDERSTOOD else 1
        except zmq.ZMQError:  # the context went first
            pass
        finally:
            for s in (self._zap, *self._monitors):
                s.close(0)

    def _answer(self, asked: list[bytes]) -> list[bytes]:
        version, number, *rest = asked
        known = len(rest) == 5 and rest[3] == b"CURVE" and rest[4] in self._known
        return [version, number, *((b"200", b"", b"") if known else (b"400", b"key is not known", b"")), b""]

    def close(self) -> None:
        """After its socket has been closed."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(2)
        with contextlib.suppress(zmq.ZMQError):
            self.context.term()


def context_of(door: Door | None) -> Any:
    """Where a socket is made: behind a door, or in the context that all share."""
    return door.context if door else zmq.Context.instance()
