"""Entries of states as words."""

import json

import numpy as np
import pytest

from rheobase.nodes.state_markers import StateMarkers
from rheobase.stream.block import Block, Spec, StreamError

STATES = Spec(rate=10, channels=("p0", "p1", "state", "score"), delay=0.5)
LABELS = [0, 0, 1, 1, np.nan, 1, 0, 0, 0, 1]


def blocks(cuts: list[int], segment: int = 0) -> list[Block]:
    p = np.linspace(0.5, 0.95, 10)
    data = np.column_stack([p, 1 - p, LABELS, np.zeros(10)])
    whole = Block(data, 5 + np.arange(10) / 10, 0, segment)
    return [whole.cut(a, b) for a, b in zip([0, *cuts], [*cuts, 10], strict=True)]


@pytest.mark.parametrize("cuts", [[], [2], [3, 4, 5], list(range(1, 10))])
def test_each_entry_is_a_word_however_the_stream_is_cut(cuts: list[int]) -> None:
    node = StateMarkers()
    out = node.start(STATES)
    assert (out.dtype, out.rate, out.delay) == ("str", 0, 0.5)
    given = [y for x in blocks(cuts) if (y := node.process(x))]
    assert [y.seq for y in given] == np.cumsum([0, *(len(y) for y in given)])[:-1].tolist()
    words = [json.loads(w) for y in given for w in y.data[:, 0]]
    times = [t for y in given for t in y.times.tolist()]
    np.testing.assert_allclose(times, [5.0, 5.2, 5.6, 5.9])
    assert [(w["event"], w["state"], w["from"], w["after"]) for w in words] == [
        ("state", 0, None, None), ("state", 1, 0, 0.2), ("state", 0, 1, 0.4), ("state", 1, 0, 0.3),
    ]  # fmt: skip
    assert words[1]["p"] == 0.4, "its posterior there, a state may be the likeliest path and not likely alone"


def test_a_segment_begins_with_an_entry_that_comes_of_none() -> None:
    node = StateMarkers()
    node.start(STATES)
    node.process(blocks([])[0])
    [first, *_] = [json.loads(w) for w in node.process(blocks([], segment=1)[0]).data[:, 0]]
    assert (first["state"], first["from"]) == (0, None)


def test_takes_the_stream_of_states_only() -> None:
    with pytest.raises(StreamError, match="in: takes the stream of an hmm_glm"):
        StateMarkers().start(Spec(rate=10, channels=("p0", "p1")))
