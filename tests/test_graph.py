"""Configs: what is read, what comes out again, and that each error is one line with the nearest right word."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from parts import Keep, Ramp, Square

from rheobase.nodes.bins import Bins
from rheobase.stream.block import StreamError
from rheobase.stream.graph import Edge, Graph, from_dict, parse, read

GOOD = """
name: good
nodes:
  raw:  {type: "parts:Ramp", n: 10, process: acquire}
  b:    {type: bins, in: raw, width: 0.02}
  k:    {type: "parts:Keep", in: [raw, {from: b, policy: latest}, {from: b, policy: {drop_oldest: 7}}], process: show}
eval: {truth: raw}
"""


def test_a_config_is_a_graph() -> None:
    graph = parse(GOOD)
    assert list(graph) == ["raw", "b", "k"]
    assert graph.processes() == ["acquire", "main", "show"]
    assert isinstance(graph["b"], Bins)
    assert graph["b"].width == 0.02
    assert graph.places["k"].edges == [Edge("raw"), Edge("b", "latest"), Edge("b", "drop_oldest", 7)]
    assert graph.options == {"eval": {"truth": "raw"}}


def test_a_config_survives_writing_and_reading() -> None:
    once = parse(GOOD).to_dict()
    again = from_dict(yaml.safe_load(yaml.safe_dump(once, sort_keys=False))).to_dict()
    assert once == again
    assert once["nodes"]["b"]["how"] == "sum", "every parameter is written out"


def test_ten_lines_of_python_are_the_same_graph() -> None:
    graph = Graph("good")
    graph.add("raw", Ramp(n=10), process="acquire")
    graph.add("b", Bins(width=0.02), "raw")
    graph.add("k", Keep(), ["raw", Edge("b", "latest"), Edge("b", "drop_oldest", 7)], process="show")
    graph.options = {"eval": {"truth": "raw"}}
    assert graph.to_dict() == parse(GOOD).to_dict()


def test_one_process_loads_only_its_own_nodes() -> None:
    part = from_dict(parse(GOOD).to_dict(), only="show")
    assert list(part) == ["k"]
    assert [e.source for e in part.places["k"].edges] == ["raw", "b", "b"]


def test_above_is_what_a_node_needs() -> None:
    graph = parse(GOOD)
    assert list(graph.above("b")) == ["raw", "b"]
    with pytest.raises(StreamError, match="no node 'bb'; did you mean 'b'"):
        graph.above("bb")


def test_mermaid_names_every_node_and_edge() -> None:
    text = parse(GOOD).mermaid()
    assert "subgraph acquire" in text
    assert "raw -. block .-> b" in text
    assert "b -. latest .-> k" in text


def test_set_changes_a_parameter() -> None:
    graph = parse(GOOD)
    graph.set("b.width=0.05")
    assert graph["b"].width == 0.05  # type: ignore[attr-defined]
    for change, says in [
        ("b.widht=1", "--set 'b.widht=1': unknown key 'widht'; did you mean 'width'"),
        ("c.width=1", "no node 'c'"),
        ("b.width", "write node.key=value"),
        ("b.width=[1", "--set"),
    ]:
        with pytest.raises(StreamError, match=says.replace("[", r"\[")):
            graph.set(change)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("width: 0.02", "widht: 0.02", "node 'b' (bins): unknown key 'widht'; did you mean 'width'?"),
        ("width: 0.02", "width: fast", "node 'b' (bins): width: expected `float`, got `str`"),
        ("width: 0.02", "width: -1", "node 'b' (bins): width: expected `float` > 0.0"),
        ("width: 0.02", "width: 0.02, width: 0.03", "line 4: 'width' stands here twice"),
        ("type: bins", "type: bin", "node 'b': unknown type 'bin'; did you mean 'bins'?"),
        ("type: bins", "typ: bins", "node 'b': write {type: ..., in: ..., parameters}"),
        ("in: raw,", "in: rwa,", "node 'b': in: no node 'rwa' above it; did you mean 'raw'?"),
        ("in: raw,", "in: b,", "node 'b': in: listens to itself"),
        ("in: raw,", "in: k,", "node 'b': in: no node 'k' above it"),
        ("in: raw,", "in: [raw, raw],", "node 'b' (bins): in: takes one input, got 2: merge them first"),
        ("in: raw,", "", "node 'b' (bins): needs 'in', the node it listens to"),
        ("in: raw,", "in: {from: raw, polcy: block},", "node 'b': in: write a node's name or {from: name"),
        ("n: 10,", "n: 10, in: b,", "node 'raw' (parts:Ramp): in: a source listens to nothing"),
        ("  b:  ", "  raw:", "line 4: 'raw' stands here twice"),
        ("policy: latest", "policy: newest", "node 'k': in: unknown policy 'newest'"),
        (
            "policy: latest",
            "policy: drop_oldest",
            "node 'k': in: policy 'drop_oldest': write block, latest, or drop_oldest: n",
        ),
        ("drop_oldest: 7", "drop_oldest: ²", "node 'k': in: policy 'drop_oldest: ²': write block, latest, or drop"),
        ("drop_oldest: 7", "drop_oldest: 99999999999", "drop_oldest: n (messages kept, at most 2147483647)"),
        ("width: 0.02", "<<: 3, width: 0.02", "line 4: expected a mapping or list of mappings for merging"),
        ("width: 0.02", "<<: &a {width: 1, width: 2}", "line 4: 'width' stands here twice"),
        ("parts:Keep", "parts:Kept", "no class 'Kept' in parts; did you mean 'Keep'?"),
        ("parts:Keep", "nowhere:Keep", "no module 'nowhere'"),
        ("parts:Keep", "math:pi", "is not a rheobase Node"),
        ("name: good", "nmae: good", "unknown key 'nmae'; did you mean 'name'?"),
        ("process: show", "process: 3", "node 'k': process: must be a word, got 3"),
        ("  b:  ", "  2b: ", "node '2b': a name is letters, digits and _"),
        ("nodes:", "nodes: 3\nnode:", "a config is a mapping with 'name' and 'nodes'"),
        ("name: good", "name: [good", "line"),
    ],
)
def test_errors_name_the_place_and_the_right_word(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    file = tmp_path / "g.yaml"
    file.write_text(GOOD.strip().replace(old, new, 1))
    with pytest.raises(StreamError) as e:
        read(file)
    assert str(e.value).startswith(str(file))
    assert says in str(e.value)
    assert "\n" not in str(e.value)


def test_two_nodes_of_one_name_in_python() -> None:
    graph = Graph().add("a", Ramp())
    with pytest.raises(StreamError, match="two nodes are named 'a'"):
        graph.add("a", Square(), "a")


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "cursor.yaml").write_text("x")
    with pytest.raises(StreamError, match=r"curser.yaml: No such file or directory; did you mean 'cursor.yaml'"):
        read(tmp_path / "curser.yaml")


def test_needed_parameters_are_asked_for() -> None:
    with pytest.raises(StreamError, match=r"node 'r' \(replay\): needs 'file'"):
        parse("nodes: {r: {type: replay}}")


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parent.parent / "configs").glob("*.yaml")), ids=lambda f: f.stem
)
def test_every_config_that_comes_along_is_read(file: Path) -> None:
    graph = read(file)
    assert graph.places
    assert graph.name == file.stem


def test_processes_that_listen_to_each_other_are_refused() -> None:
    """Each would wait for the other's Spec before it gives its own."""
    text = """
nodes:
  src:  {{type: "parts:Recorded", process: acquire}}
  sq:   {{type: "parts:Square", in: src}}
  keep: {{type: "parts:Keep", in: [src, sq], process: {where}}}
"""
    parse(text.format(where="sink")).check()
    parse(text.format(where="main")).check()
    with pytest.raises(StreamError, match=r"processes .*acquire.* samples must not come back"):
        parse(text.format(where="acquire")).check()


def test_what_is_merged_gives_way_to_what_stands_there() -> None:
    text = """
nodes:
  src: {type: "parts:Ramp", n: 10}
  a:   &a {type: bins, in: src, width: 0.02, how: mean}
  b:   &b {<<: *a, width: 0.05}
  c:   {<<: [*b, *a], how: sum}
"""
    nodes = parse(text).to_dict()["nodes"]
    assert [(nodes[k]["width"], nodes[k]["how"]) for k in "abc"] == [(0.02, "mean"), (0.05, "mean"), (0.05, "sum")]


def test_merges_of_merges_are_bounded() -> None:
    lines = [f"  n{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 20)}]}}" for i in range(1, 30)]
    with pytest.raises(StreamError, match=r"its '<<' come to more than"):
        parse("nodes:\n  n0: &a0 {x: 1}\n" + "\n".join(lines))


@pytest.mark.parametrize("other", ["policy: latest", "edge: zmq"])
def test_an_edge_that_cannot_be_shared_memory_is_refused(other: str) -> None:
    text = f"""
nodes:
  src:  {{type: "parts:Ramp", process: acquire}}
  sq:   {{type: "parts:Square", in: src, process: acquire}}
  keep: {{type: "parts:Keep", in: [{{from: src, edge: shm}}, {{from: sq, {other}}}]}}
"""
    parse(text.replace("process: acquire", "process: main")).check()
    with pytest.raises(StreamError, match="node 'keep': in: edge: shm cannot be: another edge to that process"):
        parse(text).check()
