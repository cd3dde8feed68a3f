"""The nodes of one process: specs down the edges, then blocks.

Within a process an edge is a call. Each maximal tree of kernels is one `Loop`; a block at its root comes out of
the kernels that somebody else listens to. A node of several inputs gets them aligned by time (`Align`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zmq

from rheobase.stream import checkpoint, clock
from rheobase.stream.align import Align, Listener
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.graph import Graph, Place
from rheobase.stream.link import START, Receiver, Sender
from rheobase.stream.node import Kernel, Node, Sink, Source, blame, type_name
from rheobase.stream.options import Process
from rheobase.stream.pulse import SINCE, Pulse
from rheobase.stream.shared import RingReceiver

if TYPE_CHECKING:
    from rheobase.stream.swap import Swap, Swaps

log = logging.getLogger("rheobase")

Item = tuple[str, Block]
"""A block, and the name it is pushed under."""
IDLE = 0.1
"""s: the longest that anything here waits before it looks whether it should stop."""
APART = 1.0
"""s: where a recorded stream's times went back and others have gone on for so long, its clock alone was set."""
WARN = 1.0
"""s between two words in the log about samples that are late."""


class Engine:
    """Runs the nodes of one process.

    graph      the whole graph
    process    label of the nodes to run here (None: all of them)
    receivers  for (node, input) pairs that come from other processes
    senders    makes the sending ends: called with (from, Spec, virtual) once the Spec is known
    taps       node name -> called with each block it gives
    outward    names of nodes here that other processes listen to
    speed      of recorded sources: 1 real time, 0 as fast as they are taken
    config     the whole graph as plain values (default: that of `graph`)
    tell       takes what a node asks of the run (default: `hear`)
    planned    models to swap in where a run had swapped them in
    options    how the process is watched: what is late, and what to do then
    pulse      where it writes what it is at
    attempt    how often a process before this one has run these nodes
    wait       for the Specs of other processes, s: a source above may look for its stream
    """

    def __init__(
        self,
        graph: Graph,
        process: str | None = None,
        receivers: Mapping[tuple[str, int], Receiver] | None = None,
        senders: Callable[[str, Spec, bool], Sequence[Sender]] = lambda name, spec, virtual: (),
        taps: Mapping[str, Listener] | None = None,
        outward: Collection[str] = (),
        speed: float = 0.0,
        folder: Path | None = None,
        config: dict[str, Any] | None = None,
        tell: Callable[[dict[str, Any]], None] | None = None,
        planned: Sequence[Swap] = (),
        options: Process | None = None,
        pulse: Pulse | None = None,
        attempt: int = 0,
        wait: float = START,
    ) -> None:
        self.options, self.pulse, self.attempt, self.wait = options or Process(), pulse or Pulse(None), attempt, wait
        self.here = {k: p for k, p in graph.places.items() if process in (None, p.process)}
        self.receivers = dict(receivers or {})
        self.taps = dict(taps or {})
        self.specs: dict[str, Spec] = {}
        self.ages: dict[str, clock.Ages] = {}
        self.counts: dict[str, int] = {}
        self.senders: dict[str, list[Sender]] = {}
        self.outward = set(outward)
        self.speed, self.folder, self.planned = speed, folder, planned
        self.dead: set[str] = set()
        """Edges whose other end died: nothing more comes from them, nothing is taken."""
        self.moved: dict[str, str] = {}
        """Edge -> where its sender has begun anew."""
        self._make_senders = senders
        self._stop = threading.Event()
        self._warming = self._closed = False
        self._begin: tuple[float, float] | None = None
        """By the clock, and by the recording: where the pace of what is recorded is counted from."""
        self.keep = False
        """A copy of all state is wanted in `kept` (`checkpoint`)."""
        self.kept: dict[str, Any] | None = None
        self.loops: dict[str, Swaps] = {}
        self._warned = -math.inf
        self.missed: dict[str, int] = {}
        """Sink -> blocks that were older than the deadline."""
        self._listeners: dict[str, list[Listener]] = {}
        self._aligned: dict[str, Align] = {}
        self._swaps: dict[str, Swaps] = {}
        self.refused: dict[str, int] = {}
        config = graph.to_dict() if config is None else config
        for name, place in self.here.items():
            place.node.name, place.node.folder = name, folder
            place.node.inputs = tuple(e.source for e in place.edges)
            place.node.config, place.node.tell = config, tell or self.hear
            place.node.attempt = attempt
        self._number = {name: k for k, name in enumerate(config["nodes"])}
        self.sources = {k: p.node for k, p in self.here.items() if isinstance(p.node, Source)}

    @property
    def virtual(self) -> bool:
        """Whether times are those of a recording, so that ages mean nothing."""
        return any(not s.live for s in self.sources.values()) or any(r.virtual for r in self.receivers.values())

    @property
    def late(self) -> dict[str, int]:
        """Node of several inputs -> samples that came too late to be aligned."""
        return {name: align.late for name, align in self._aligned.items()}

    @property
    def in_order(self) -> bool:
        """Whether all that comes in is recorded and read here, so that it can be taken in order of time."""
        return self.recorded and not self.receivers

    @property
    def recorded(self) -> bool:
        """Whether all that comes in is recorded."""
        return all(not s.live for s in self.sources.values()) and all(r.virtual for r in self.receivers.values())

    def start(self) -> None:
        """Start every node, run zeros through what is not yet compiled, and start them again.

        Raises StreamError that names the node.
        """
        given = self._start_sources()
        for (name, i), receiver in self.receivers.items():
            source = self.here[name].edges[i].source
            given.setdefault(source, receiver.wait_spec(self.wait, self._stop.is_set))
        self._build(given)
        if any(not isinstance(p.node, Kernel | Source | Sink) for p in self.here.values()):
            self._warm(given)
            self._build(given)
        for name in self.here:
            if name in self.specs:
                self.senders[name] = list(self._make_senders(name, self.specs[name], self.virtual))
                for sender in self.senders[name]:
                    self._listen(name, sender.send)

    def _start_sources(self) -> dict[str, Spec]:
        """Side by side, for each may have to look for its stream; the first that fails ends the wait for all."""
        box: queue.SimpleQueue[tuple[str, Spec | BaseException]] = queue.SimpleQueue()

        def start(name: str, node: Source) -> None:
            try:
                with blame(node):
                    out = node.start()
                    if out is None:
                        raise TypeError("start() must return the Spec of what comes")
                box.put((name, out))
            except BaseException as e:  # noqa: BLE001 it is raised where it is waited for
                box.put((name, e))

        for item in self.sources.items():
            threading.Thread(target=start, args=item, daemon=True).start()
        given = {}
        for _ in self.sources:
            name, out = box.get()
            if isinstance(out, BaseException):
                raise out
            given[name] = out
        return given

    def run(self) -> None:
        """Until every input has ended, or `stop` was called. Raises what a node raises, with its name."""
        slots = self.pulse.slots
        try:
            for item in self.inputs():
                if item is None:
                    self._flush()
                elif isinstance(item, str):
                    self._ended(item)
                else:
                    slots[SINCE] = time.monotonic_ns()
                    self.push(*item)
                    slots[SINCE] = 0
                if self.keep:
                    self.keep, self.kept = False, checkpoint.take(self)
            self.finish()
        except BaseException:
            with contextlib.suppress(Exception):  # what went wrong first is what is told
                self.close(say_end=not self.options.restart)  # readers wait for who goes on with the edges
            raise
        self.close()

    def stop(self) -> None:
        """Sources stop; what is on its way is finished."""
        self._stop.set()

    def hear(self, what: dict[str, Any]) -> None:
        """Do what a node asked for (`Node.tell`), if the node it concerns is here. From any thread."""
        asked = what["swap"]
        if asked["node"] in self._swaps:
            try:
                self._swaps[asked["node"]].give(asked["node"], asked["model"])
            except StreamError as e:
                self.refused[asked["node"]] = self.refused.get(asked["node"], 0) + 1
                log.warning("swap refused: %s", e)

    @property
    def swapped(self) -> dict[str, dict[str, int]]:
        """Decoder -> models swapped in since the start, and those refused."""
        # asked for beside the loop, which may make a first swap meanwhile: copies
        names = {n for s in list(self._swaps.values()) for n in list(s.made)} | set(self.refused)
        return {n: {"swaps": self._swaps[n].made.get(n, 0), "refused": self.refused.get(n, 0)} for n in names}

    def push(self, name: str, block: Block) -> None:
        """A block from node `name` to all that listen to it here."""
        self.counts[name] = self.counts.get(name, 0) + len(block)
        if not self._warming and name in self.taps:
            self.taps[name](block)
        for listener in self._listeners.get(name, ()):
            listener(block)

    def _flush(self) -> None:
        """Nothing comes: what an edge that drops still keeps must not wait for the next sample, nor what waits for an
        input that is silent.
        """
        for align in self._aligned.values():
            align.idle()
        for senders in self.senders.values():
            for sender in senders:
                sender.flush()

    def _ended(self, address: str) -> None:
        """An input has ended, and with it each node here that hears nothing else: nobody waits for them."""
        self._over.add(address)
        for name, place in self.here.items():
            over = [self._address(name, i, e.source) in self._over for i, e in enumerate(place.edges)]
            if over and all(over):
                self._over.add(name)
            for i, ended in enumerate(over):
                if ended and i and name in self._aligned:
                    self._aligned[name].ended(i)

    def finish(self) -> None:
        """The inputs have ended: let go of what still waits for another."""
        for align in self._aligned.values():
            align.finish()

    def close(self, say_end: bool = True) -> None:
        """Close every node and say the end on every edge, if `say_end`; a second call does nothing.

        The sending ends stay open until their readers have come to the end (see `Sender.close`).
        """
        if self._closed:
            return
        self._closed = True
        errors = []
        for place in self.here.values():
            place.node.ends = say_end
            try:
                with blame(place.node):
                    place.node.stop()
            except Exception as e:  # noqa: BLE001 the others must be closed too
                errors.append(e)
        for sender in itertools.chain(*self.senders.values()) if say_end else ():
            sender.end()
        for receiver in self.receivers.values():
            receiver.close()
        if errors:
            raise errors[0]

    # --- building

    def _listen(self, name: str, listener: Listener) -> None:
        self._listeners.setdefault(name, []).append(listener)

    def _build(self, given: Mapping[str, Spec]) -> None:
        """Wire up and start all but the sources."""
        self.specs = dict(given)
        self._over: set[str] = set()
        self._listeners, self._aligned, self._swaps, self.counts, self.loops = {}, {}, {}, {}, {}
        done: set[str] = set()
        for name, place in self.here.items():
            node = place.node
            if name in done or isinstance(node, Source):
                continue
            if isinstance(node, Kernel):
                done |= self._build_loop(name)
                continue
            specs = [self.specs[e.source] for e in place.edges]
            if isinstance(node, Sink) and self._warming:
                continue
            with blame(node):
                out = node.start(*specs)
            if isinstance(node, Sink):
                self._build_sink(name, node, place)
            elif out is None:
                raise StreamError(f"node {name!r}: start() must return the Spec of what comes out")
            else:
                self.specs[name] = out
                self._build_node(name, node, place, specs)

    def _build_loop(self, root: str) -> set[str]:
        """The maximal tree of kernels below `root`."""
        # with them comes numba, which a process without kernels need not load
        from rheobase.stream.fuse import Loop
        from rheobase.stream.swap import Swaps

        names, parents = [root], [-1]
        for name, place in self.here.items():
            above = place.edges[0].source if place.edges else ""
            if isinstance(place.node, Kernel) and above in names and name not in names:
                names.append(name)
                parents.append(names.index(above))
        source = self.here[root].edges[0].source
        loop = Loop([self.here[n].node for n in names], parents, [i for i, n in enumerate(names) if self._is_heard(n)])  # type: ignore[misc]
        specs = loop.start(self.specs[source])
        self.specs.update(zip(names, specs, strict=True))
        inputs = [self.specs[self.here[n].edges[0].source] for n in names]
        swaps = Swaps(loop, inputs, self.planned, self.folder)
        self._swaps.update(dict.fromkeys(names, swaps))
        self.loops[root] = swaps
        at, number = self.pulse.at, self._number[root]

        def run(x: Block) -> None:
            at(number, x)
            for part in swaps.through(x):
                for i, block in loop.process(part):
                    self.push(names[i], block)

        self._listen(self._address(root, 0, source), run)
        return set(names)

    def _is_heard(self, name: str) -> bool:
        """Whether anything but a kernel of this process wants what a kernel gives."""
        inside = [p for p in self.here.values() if any(e.source == name for e in p.edges)]
        return name in self.taps or name in self.outward or any(not isinstance(p.node, Kernel) for p in inside)

    def _build_sink(self, name: str, node: Sink, place: Place) -> None:
        ages = self.ages.setdefault(name, clock.Ages())
        virtual = self.virtual
        at, number, deadline = self.pulse.at, self._number[name], self.options.deadline

        def take(i: int) -> Listener:
            def run(x: Block) -> None:
                at(number, x)
                give: Callable[[int, Block], None] = node.take
                if not virtual:
                    age = clock.now() - x.times[0]
                    ages.add(age)
                    if deadline and age > deadline:
                        give = self._miss(node, x, age)
                self.counts[name] = self.counts.get(name, 0) + len(x)
                with blame(node):
                    give(i, x)

            return run

        for i, edge in enumerate(place.edges):
            self._listen(self._address(name, i, edge.source), take(i))

    def _miss(self, node: Sink, x: Block, age: float) -> Callable[[int, Block], None]:
        """A block came too late: say so, and give back what is to be done with it."""
        late, limit = self.options.late, self.options.deadline
        self.missed[node.name] = self.missed.get(node.name, 0) + 1
        said = f"sample {x.seq} is {age * 1e3:.0f} ms old, more than its deadline of {limit * 1e3:g} ms"
        if late == "stop":
            raise StreamError(f"node {node.name!r} ({type_name(type(node))}): {said}")
        if clock.now() - self._warned > WARN:
            self._warned = clock.now()
            log.warning("%s: %s", node.name, said)
        return getattr(node, "withhold", node.take) if late == "safe" else node.take

    def _build_node(self, name: str, node: Node, place: Place, specs: Sequence[Spec]) -> None:
        seq = 0

        at, number = self.pulse.at, self._number[name]

        def give(*x: Block) -> None:
            nonlocal seq
            at(number, x[0])
            with blame(node):
                out = node.process(*x)
                if out is not None:
                    _hold_to(self.specs[name], out)
            if out is not None and len(out):
                out = out.replace(seq=seq, segment=x[0].segment)
                seq += len(out)
                self.push(name, out)

        if len(place.edges) == 1:
            self._listen(self._address(name, 0, place.edges[0].source), give)
            return
        slow = any(self._makes_times(e.source) for e in place.edges[1:])
        align = Align(specs, give, self.recorded, slow)
        self._aligned[name] = align
        for i, edge in enumerate(place.edges):
            self._listen(self._address(name, i, edge.source), align.taker(i))

    def _makes_times(self, name: str) -> bool:
        """Whether what a node gives for a time may come of a later sample."""
        place = self.here.get(name)
        return place is not None and (place.node.own_times or any(self._makes_times(e.source) for e in place.edges))

    def _address(self, name: str, i: int, source: str) -> str:
        """Blocks of an edge from another process are pushed under a name of their own."""
        return f"{source}>{name}.{i}" if (name, i) in self.receivers else source

    def _warm(self, given: Mapping[str, Spec]) -> None:
        """Zeros through everything that may compile something, so that nothing compiles on live data."""
        self._warming = True
        try:
            self._build(given)
            for name, spec in given.items():
                addresses = {name} | {
                    self._address(n, i, name) for (n, i) in self.receivers if self.here[n].edges[i].source == name
                }
                text = spec.dtype == "str"
                for n, address in itertools.product((1, 4), addresses):
                    data = np.full((n, spec.n), "", object) if text else np.zeros((n, spec.n), spec.dtype)
                    times = np.arange(n) / (spec.rate or 1.0)
                    if address != name and not text:  # as they come over an edge: another type to a compiler
                        data.flags.writeable = times.flags.writeable = False
                    self.push(address, Block(data, times))
        finally:
            self._warming = False

    # --- running

    def inputs(self) -> Iterator[Item | str | None]:
        """Every block that comes into this process, with the name it is pushed under; that name alone where no more
        comes under it; None while nothing comes.
        """
        if self.in_order:
            return self._in_order()
        if not self.receivers and len(self.sources) == 1:
            return self._from_source(*next(iter(self.sources.items())))
        if not self.sources:
            return self._from_links()
        return self._from_threads()

    def _in_order(self) -> Iterator[Item]:
        """Recorded sources, merged by time, at their pace if there is one; where the clock of all of them was set back,
        what comes then after all of before.
        """
        ways = [_Way(name, self._pieces(source)) for name, source in self.sources.items()]
        turn = 0
        while ways := [w for w in ways if w.block is not None]:
            way = min(ways, key=lambda w: (w.turn, w.first))
            alone = [w for w in ways if w.turn > way.turn and way.first > w.left + APART]
            for w in alone:  # the others have gone on: its own clock was set back, and it goes by that
                w.turn = way.turn
            if alone:
                continue
            block = way.block
            assert block is not None
            if way.turn > turn:
                turn, self._begin = way.turn, None
                for align in self._aligned.values():
                    align.again()
            self._wait_for(block)
            if self._stop.is_set():
                return
            for align in self._aligned.values():  # an upper one's samples are there before a lower one goes on
                align.until(way.first)
            yield way.name, block
            way.next()

    def _pieces(self, source: Source) -> Iterator[Block]:
        for whole in self._open(source):
            if whole is not None:
                yield from (b for b in (self._paced(whole) if self.speed else [whole]) if len(b))

    def _wait_for(self, block: Block) -> None:
        """Until a recorded block is due, if there is a pace: all that is read here by one clock."""
        if not self.speed:
            return
        t = float(block.times[-1])
        self._begin = self._begin or (clock.now(), t)  # of two threads either may be the first
        due = self._begin[0] + (t - self._begin[1]) / self.speed
        while (left := due - clock.now()) > 0 and not self._stop.is_set():
            clock.wait_until(clock.now() + min(left, IDLE))

    def _paced(self, block: Block) -> list[Block]:
        """Pieces of at most 5 ms on the wall clock."""
        n = len(block)
        span = float(block.times[-1] - block.times[0]) / self.speed if n else 0.0
        size = max(1, int(n * 0.005 / span)) if span > 0.005 else max(1, n)
        return [block.cut(a, min(a + size, n)) for a in range(0, n, size)]

    def _open(self, source: Source) -> Iterator[Block | None]:
        with blame(source):
            for block in source.blocks():
                if block is not None:
                    _hold_to(self.specs[source.name], block)
                yield block

    def _from_source(self, name: str, source: Source) -> Iterator[Item | str | None]:
        for whole in self._open(source):
            if self._stop.is_set():
                return
            if whole is None:
                yield None
                continue
            for block in self._paced(whole) if self.speed and not source.live else [whole]:
                if not source.live:
                    self._wait_for(block)
                if self._stop.is_set():
                    return
                yield (name, block) if len(block) else None
        yield name

    def _from_links(self) -> Iterator[Item | str | None]:
        if all(isinstance(r, RingReceiver) for r in self.receivers.values()):
            return self._from_rings()
        return self._from_sockets()

    def _from_sockets(self) -> Iterator[Item | str | None]:
        open_ = {self._address(n, i, self.here[n].edges[i].source): r for (n, i), r in self.receivers.items()}
        poller = zmq.Poller()
        by_socket = {}
        for name, receiver in open_.items():
            poller.register(receiver.socket, zmq.POLLIN)
            by_socket[receiver.socket] = name
        while open_:
            for name in [n for n, r in open_.items() if r.address in self.moved] if self.moved else ():
                receiver = open_[name]
                if not receiver.pending():
                    poller.unregister(receiver.socket)
                    receiver.move(self.moved.pop(receiver.address))
                    poller.register(receiver.socket, zmq.POLLIN)
                    by_socket[receiver.socket] = name
            if len(open_) == 1:
                ready = list(open_)
                wait = IDLE
            else:
                ready = [n for n, r in open_.items() if r.waiting]
                ready += [
                    n for s, _ in poller.poll(0 if ready else int(IDLE * 1000)) if (n := by_socket[s]) not in ready
                ]
                ready += [n for n, r in open_.items() if r.address in self.dead and n not in ready]
                wait = 0.0
            idle = True
            for name in ready:
                receiver = open_[name]
                # as many as lie there, but not for ever: the others wait
                for _ in range(64):
                    block = receiver.receive(wait)
                    if block is None:
                        break
                    yield name, block
                    wait, idle = 0.0, False
                if receiver.ended or (receiver.address in self.dead and not receiver.pending(int(IDLE * 1000))):
                    poller.unregister(receiver.socket)
                    del open_[name]
                    yield name
            if idle:
                yield None

    def _from_rings(self) -> Iterator[Item | str | None]:
        """Edges in shared memory: all that lies there, then sleep on the one bell that their writers ring."""
        open_ = [(self._address(n, i, self.here[n].edges[i].source), r) for (n, i), r in self.receivers.items()]
        rings = [r for _, r in open_ if isinstance(r, RingReceiver)]
        bell = rings[0].ring.bell
        while open_:
            seen, idle = bell.value(), True
            for item in list(open_):
                name, receiver = item
                for _ in range(64):
                    block = receiver.receive(0.0)
                    if block is None:
                        break
                    yield name, block
                    idle = False
                if receiver.address in self.moved and not receiver.pending():
                    receiver.move(self.moved.pop(receiver.address))
                if receiver.ended or (receiver.address in self.dead and not receiver.pending(int(IDLE * 1000))):
                    open_.remove(item)
                    yield name
            if idle:
                bell.wait(seen, IDLE)
                if bell.value() == seen:
                    yield None

    def _from_threads(self) -> Iterator[Item | str | None]:
        """Several inputs, some of which block: a thread for each source, and one for all edges."""
        box: queue.Queue[Item | str | BaseException | None] = queue.Queue(maxsize=256)

        def feed(blocks: Iterator[Item | str | None]) -> None:
            try:
                for item in blocks:
                    if item is not None:
                        box.put(item)
                box.put(None)
            except BaseException as e:  # noqa: BLE001 it is raised where it is waited for
                box.put(e)

        ways = [self._from_source(n, s) for n, s in self.sources.items()]
        if self.receivers:
            ways.append(self._from_links())
        for way in ways:
            threading.Thread(target=feed, args=(way,), daemon=True).start()
        left = len(ways)
        while left:
            try:
                item = box.get(timeout=IDLE)
            except queue.Empty:
                yield None
                continue
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item


class _Way:
    """Blocks of one recorded source: the next one, its first time, and how often all times went back before it."""

    def __init__(self, name: str, blocks: Iterator[Block]) -> None:
        self.name, self.blocks = name, blocks
        self.turn, self.first, self.left, self.last = 0, -math.inf, -math.inf, -math.inf
        self.next()

    def next(self) -> None:
        """Go on; without a block, it has ended."""
        self.block = next(self.blocks, None)
        if self.block is not None:
            self.first = float(self.block.times[0])
            if self.first < self.last - Align.BACK:
                self.turn, self.left = self.turn + 1, self.last
            self.last = float(self.block.times[-1])


def _hold_to(spec: Spec, x: Block) -> None:
    """Samples are what their Spec says; else they would become others on an edge to another process."""
    if x.data.shape != (len(x.times), spec.n) or x.data.dtype != (object if spec.dtype == "str" else spec.dtype):
        given = f"{x.data.dtype} of shape {x.data.shape} with {len(x.times)} times"
        raise StreamError(f"gave {given}: its Spec, which start() returns, says {spec.dtype} of {spec.n} channels")


def collect(graph: Graph, names: Sequence[str], progress: Callable[[float], None] | None = None) -> dict[str, Block]:
    """Run the part of a graph above some nodes over its recorded sources: all that each node gave.

    Segments are lost on the way: Block.segment is that of the first sample.
    Raises StreamError where a source is live.
    """
    part = graph.above(*names)
    for name, place in part.places.items():
        if isinstance(place.node, Source) and place.node.live:
            raise StreamError(f"node {name!r} is live: only a recording can be run through")
    got: dict[str, list[Block]] = {name: [] for name in names}

    def keep(name: str) -> Listener:
        def take(block: Block) -> None:
            got[name].append(block)
            if progress:
                progress(float(block.times[-1]))

        return take

    engine = Engine(part, taps={name: keep(name) for name in names})
    engine.start()
    engine.run()
    return {name: _joined(blocks, engine.specs[name]) for name, blocks in got.items()}


def _joined(blocks: Sequence[Block], spec: Spec) -> Block:
    if not blocks:
        return Block(np.empty((0, spec.n), object if spec.dtype == "str" else spec.dtype), np.empty(0))
    data = np.concatenate([b.data for b in blocks])
    return Block(data, np.concatenate([b.times for b in blocks]), blocks[0].seq, blocks[0].segment)
