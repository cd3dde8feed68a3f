"""A config, or a few lines of Python, becomes a checked `Graph`.

    name: alpha
    nodes:
      raw:   {type: lsl, stream: {name: EEG}, process: acquire}
      band:  {type: bandpass, in: raw, low: 8, high: 12}
      view:  {type: view, in: [raw, {from: band, policy: latest}], process: view}

    g = Graph("alpha")
    g.add("raw", Lsl(stream={"name": "EEG"}), process="acquire")
    g.add("band", BandPass(low=8, high=12), "raw")

A node listens only to nodes above it, so no cycle can be written. Every error about a config is raised here or
under `blame`, as a StreamError of one line: file, node, key, and the nearest right word.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from rheobase.stream.block import StreamError
from rheobase.stream.node import Kernel, Node, Source, blame, load, nearest, type_name
from rheobase.stream.options import processes

LARGEST = 1 << 22
"""Characters: a longer file is no config."""
MOST = 1 << 20
"""Values in a config, each alias written out."""
KEEP = (1 << 31) - 1
"""Messages: `drop_oldest` keeps no more."""

MAIN = "main"
"""The process of nodes that name none."""


@dataclass(frozen=True)
class Edge:
    """What a node listens to, and what happens on the way when the two live in different processes.

    policy: "block", "latest" or "drop_oldest: n" (see link.py); keep is that n.
    edge: "shm" (shared memory of one host), "zmq", or "" for shared memory where that process can read it.
    """

    source: str
    policy: str = "block"
    keep: int = 0
    edge: str = ""


@dataclass
class Place:
    """A node in its graph."""

    node: Node
    edges: list[Edge] = field(default_factory=list)
    process: str = MAIN


class Graph:
    """Named nodes and what each listens to.

    options: the other top-level tables of the config (`eval`, `processes`), untouched.
    """

    def __init__(self, name: str = "graph", origin: str = "") -> None:
        self.name = name
        self.origin = origin
        self.places: dict[str, Place] = {}
        self.options: dict[str, Any] = {}

    def add(self, name: str, node: Node, inputs: str | Sequence[str | Edge] = (), process: str = MAIN) -> Graph:
        """Put a node below those that are there. Returns the graph.

        Raises StreamError on a name that is taken, an input that is not above, or too many or few inputs.
        """
        given = [inputs] if isinstance(inputs, str) else list(inputs)
        edges = [Edge(e, *_policy(type(node).policy)) if isinstance(e, str) else e for e in given]
        if name in self.places:
            raise StreamError(f"two nodes are named {name!r}")
        kind = type_name(type(node))
        if isinstance(node, Source) and edges:
            raise StreamError(f"node {name!r} ({kind}): in: a source listens to nothing")
        if not isinstance(node, Source) and not edges:
            raise StreamError(f"node {name!r} ({kind}): needs 'in', the node it listens to")
        for e in edges:
            if e.source == name:
                raise StreamError(f"node {name!r}: in: listens to itself")
            if e.source not in self.places:
                raise StreamError(f"node {name!r}: in: no node {e.source!r} above it{nearest(e.source, self.places)}")
        if isinstance(node, Kernel) and len(edges) > 1:
            raise StreamError(f"node {name!r} ({kind}): in: takes one input, got {len(edges)}: merge them first")
        node.name = name
        self.places[name] = Place(node, edges, process)
        return self

    def __getitem__(self, name: str) -> Node:
        """The node of that name. Raises StreamError with the nearest one."""
        if name not in self.places:
            raise StreamError(f"{self.origin or self.name}: no node {name!r}{nearest(name, self.places)}")
        return self.places[name].node

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def check(self) -> None:
        """Let every node check what it can before a stream is there. Raises StreamError that names it.

        Samples go one way between processes: of two that listen to each other, each would wait for the other's Spec
        before it gives its own.
        """
        above: dict[str, set[str]] = {label: set() for label in self.processes()}
        config = self.to_dict()
        for place in self.places.values():
            place.node.config, place.node.inputs = config, tuple(e.source for e in place.edges)
            with blame(place.node):
                place.node.check()
            above[place.process] |= {self.places[e.source].process for e in place.edges} - {place.process}
        try:
            graphlib.TopologicalSorter(above).prepare()
        except graphlib.CycleError as e:
            way = " -> ".join(e.args[1])
            raise StreamError(
                f"processes {way}: samples must not come back: give a node a process of its own"
            ) from None
        self._check_shared()

    def by_socket(self) -> set[str]:
        """Processes that read their edges from others by ZeroMQ, since one of these drops or asks for it."""
        return {p.process for p, e in self._far() if e.policy != "block" or e.edge == "zmq"}

    def _far(self) -> list[tuple[Place, Edge]]:
        """Every edge between two processes, with the place that reads it."""
        return [(p, e) for p in self.places.values() for e in p.edges if self.places[e.source].process != p.process]

    def _check_shared(self) -> None:
        """A process reads all its edges from shared memory, or none."""
        by_socket = self.by_socket()
        for p, e in self._far():
            if e.edge == "shm" and p.process in by_socket:
                why = "its policy drops" if e.policy != "block" else "another edge to that process cannot be one"
                raise StreamError(f"node {p.node.name!r}: in: edge: shm cannot be: {why}")

    def processes(self) -> list[str]:
        """Process labels in order of first use."""
        return list(dict.fromkeys(p.process for p in self.places.values()))

    def spare(self) -> set[str]:
        """Processes that the others can do without: of nodes that are `spare`, and of what hears nothing but these."""

        def can_go(name: str) -> bool:
            edges = self.places[name].edges
            return self.places[name].node.spare or (bool(edges) and all(can_go(e.source) for e in edges))

        return set(self.processes()) - {p.process for name, p in self.places.items() if not can_go(name)}

    def above(self, *names: str) -> Graph:
        """The part of the graph that these nodes depend on, themselves included."""
        wanted = set(names)
        for name in names:
            self[name]
        for name in reversed(self.places):
            if name in wanted:
                wanted |= {e.source for e in self.places[name].edges}
        part = Graph(self.name, self.origin)
        part.options = self.options
        part.places = {k: v for k, v in self.places.items() if k in wanted}
        return part

    def replace(self, name: str, node: Node) -> None:
        """Put another node in a node's place, under its name; a Source listens to nothing."""
        old = self.places[name]
        node.name = name
        edges = [] if isinstance(node, Source) else old.edges
        self.places[name] = Place(node, edges, old.process)

    def set(self, change: str) -> None:
        """Apply "node.key=value" (value in YAML). Raises StreamError."""
        left, found, text = change.partition("=")
        name, dot, key = left.partition(".")
        if not (found and dot):
            raise StreamError(f"--set {change!r}: write node.key=value")
        place = self.places.get(name)
        if place is None:
            raise StreamError(f"--set {change!r}: no node {name!r}{nearest(name, self.places)}")
        try:
            values = {**_values(place.node), key: yaml.safe_load(text)}
            node = type(place.node).make(**values)
        except (StreamError, yaml.YAMLError) as e:
            raise StreamError(f"--set {change!r}: {' '.join(str(e).split())}") from None
        self.replace(name, node)

    def to_dict(self) -> dict[str, Any]:
        """The config that makes this graph, every parameter written out."""
        nodes = {}
        for name, place in self.places.items():
            entry: dict[str, Any] = {"type": type_name(type(place.node))}
            edges = [
                {"from": e.source, "policy": e.policy + (f": {e.keep}" if e.keep else "")}
                | ({"edge": e.edge} if e.edge else {})
                for e in place.edges
            ]
            if edges:
                entry["in"] = edges
            if place.process != MAIN:
                entry["process"] = place.process
            nodes[name] = entry | _values(place.node)
        return {"name": self.name, "nodes": nodes, **self.options}

    def mermaid(self, said: Mapping[tuple[str, str], str] | None = None) -> str:
        """The graph as a mermaid flowchart, a box a process; said: what stands on an edge (from, to)."""
        lines = ["flowchart LR"]
        for label in self.processes():
            lines.append(f"  subgraph {label}")
            for name, p in self.places.items():
                if p.process == label:
                    lines.append(f'    {name}["{name}<br/><small>{type_name(type(p.node))}</small>"]')
            lines.append("  end")
        for name, p in self.places.items():
            for e in p.edges:
                far = self.places[e.source].process != p.process
                words = [e.policy] if far else []
                words += [more] if (more := (said or {}).get((e.source, name))) else []
                text = "<br/>".join(words)
                if said:  # what is not a word needs quotes
                    text = text and f'"{text}"'
                near = f"-- {text} -->" if text else "-->"
                lines.append(f"  {e.source} {f'-. {text} .->' if far else near} {name}")
        return "\n".join(lines)


def read(path: str | Path) -> Graph:
    """A graph from a YAML file. Raises StreamError: the file, the node, the key, the nearest right word."""
    file = Path(path)
    try:
        with open(file, encoding="utf-8") as f:
            text = f.read(LARGEST + 1)
    except OSError as e:
        near = nearest(file.name, [f.name for f in file.parent.glob("*.yaml")]) if not file.exists() else ""
        raise StreamError(f"{file}: {e.strerror}{near if 'did you mean' in near else ''}") from None
    except UnicodeDecodeError:
        raise StreamError(f"{file}: is not text (UTF-8)") from None
    return parse(text, str(file))


def parse(text: str, origin: str = "config") -> Graph:
    """A graph from YAML text. `origin` begins every error message."""
    if len(text) > LARGEST:
        raise StreamError(f"{origin}: longer than {LARGEST} characters: not a config")
    try:
        config = yaml.load(text, _Loader)  # noqa: S506 a SafeLoader
        _bounded(config, [0])
        return from_dict(config, origin)
    except yaml.MarkedYAMLError as e:
        line = f", line {e.problem_mark.line + 1}" if e.problem_mark else ""
        raise StreamError(f"{origin}{line}: {e.problem}") from None
    except yaml.YAMLError as e:
        raise StreamError(f"{origin}: {' '.join(str(e).split())}") from None
    except RecursionError:
        raise StreamError(f"{origin}: lists and mappings stand too deep in each other") from None
    except StreamError as e:
        raise StreamError(f"{origin}: {e}") from None


def from_dict(config: Any, origin: str = "", only: str | None = None) -> Graph:
    """A graph from a config that is read already; only: no more of it than one process needs to load.

    Raises StreamError.
    """
    if not isinstance(config, dict) or not isinstance(config.get("nodes"), dict):
        raise StreamError("a config is a mapping with 'name' and 'nodes' (a mapping of name: {type: ...})")
    known = ("name", "nodes", "eval", "processes")
    for key in config:
        if key not in known:
            raise StreamError(f"unknown key {key!r}{nearest(str(key), known)}")
    if not config["nodes"]:
        raise StreamError("nodes: there is none")
    graph = Graph(str(config.get("name", "graph")), origin)
    if "/" in graph.name:
        raise StreamError(f"name: {graph.name!r}: a '/' cannot be in it, for run directories are named after it")
    graph.options = {k: v for k, v in config.items() if k not in ("name", "nodes")}
    for name, entry in config["nodes"].items():
        if not isinstance(name, str) or not name.isidentifier():
            raise StreamError(f"node {name!r}: a name is letters, digits and _, and begins with no digit")
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise StreamError(f"node {name!r}: write {{type: ..., in: ..., parameters}}")
        process = entry.get("process", MAIN)
        if only not in (None, process):
            continue
        values = {str(k): v for k, v in entry.items() if k not in ("type", "in", "process")}
        try:
            cls = load(entry["type"])
        except StreamError as e:
            raise StreamError(f"node {name!r}: {e}") from None
        try:
            node = cls.make(**values)
        except StreamError as e:
            raise StreamError(f"node {name!r} ({entry['type']}): {e}") from None
        if not isinstance(process, str) or not process.isidentifier():
            raise StreamError(f"node {name!r}: process: must be a word, got {process!r}")
        edges = _edges(name, entry.get("in", []), cls.policy)
        if only is None:
            graph.add(name, node, edges, process)
        else:  # what it listens to may live elsewhere; the whole was checked when it was read
            graph.places[name] = Place(node, edges, process)
    if only is None:
        processes(graph.options, graph.processes())
    return graph


def _edges(name: str, given: Any, policy: str) -> list[Edge]:
    edges = []
    for e in given if isinstance(given, list) else [given]:
        if isinstance(e, str):
            edges.append(Edge(e, *_policy(policy)))
        elif isinstance(e, dict) and isinstance(e.get("from"), str) and set(e) <= {"from", "policy", "edge"}:
            try:
                edges.append(Edge(e["from"], *_policy(e.get("policy", policy)), _kind(e.get("edge", ""))))
            except StreamError as error:
                raise StreamError(f"node {name!r}: in: {error}") from None
        else:
            raise StreamError(f"node {name!r}: in: write a node's name or {{from: name, policy: ...}}, got {e!r}")
    return edges


def _policy(given: Any) -> tuple[str, int]:
    """ "drop_oldest: 100" or {drop_oldest: 100} -> ("drop_oldest", 100)."""
    if isinstance(given, dict) and len(given) == 1:
        given = ": ".join(map(str, *given.items()))
    word, _, n = str(given).partition(":")
    word, n = word.strip(), n.strip()
    policies = ("block", "latest", "drop_oldest")
    if word not in policies:
        raise StreamError(f"unknown policy {word!r}{nearest(word, policies)}")
    if (word == "drop_oldest") != (n.isdecimal() and len(n) < 11 and 0 < int(n) <= KEEP):
        raise StreamError(f"policy {given!r}: write block, latest, or drop_oldest: n (messages kept, at most {KEEP})")
    return word, int(n or 0)


def _kind(given: Any) -> str:
    if given not in ("", "shm", "zmq"):
        raise StreamError(f"unknown edge {given!r}{nearest(str(given), ('shm', 'zmq'))}")
    return str(given)


def _values(node: Node) -> dict[str, Any]:
    return {k: msgspec.to_builtins(getattr(node, k)) for k in type(node).parameters()}


def _bounded(value: Any, seen: list[int]) -> None:
    """Aliases of aliases may stand for more than there is memory."""
    seen[0] += 1
    if seen[0] > MOST:
        raise StreamError(f"written out, its aliases come to more than {MOST} values")
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _bounded(part, seen)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Safe, and refuses a key that stands twice (YAML alone keeps the last in silence)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.flat: set[int] = set()
        self.merged = 0

    def flatten_mapping(self, node: Any) -> None:
        """Put in place what `<<` stands for; before that, each key of its own is there once."""
        if id(node) in self.flat:
            return
        self.flat.add(id(node))
        seen = set()
        for key, value in node.value:
            merges = key.tag == "tag:yaml.org,2002:merge"
            word = key.value if merges else self.construct_object(key, deep=True)
            if isinstance(word, list | dict):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if word in seen:
                raise yaml.MarkedYAMLError(problem=f"{word!r} stands here twice", problem_mark=key.start_mark)
            seen.add(word)
            for part in (value.value if isinstance(value, yaml.SequenceNode) else [value]) if merges else ():
                if isinstance(part, yaml.MappingNode):
                    self.flatten_mapping(part)
                    self.merged += len(part.value)
            if self.merged > MOST:
                raise yaml.MarkedYAMLError(problem=f"its '<<' come to more than {MOST} values")
        super().flatten_mapping(node)
