"""Slip and force on a magnetic skin: parts that are left out are told by the others, and by nothing of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rheobase.nodes.ridge import Ridge
from rheobase.stream.block import Spec
from rheobase.tools.fit import Gathered, gather
from rheobase.tools.scores import accuracy, auc
from rheobase.tools.tactile import across, config, decoders, main, sequences_apart


def stream(seed: int) -> Gathered:
    """Noise, with a pause in the middle."""
    t = np.arange(300) / 20.0
    t[140:] += 5.0
    x = np.random.default_rng(seed).standard_normal((300, 3))
    return Gathered(Spec(rate=20, channels=("a", "b", "c")), x, t, (np.arange(300) >= 140).astype(np.int64))


def test_halves_are_scored_by_each_other() -> None:
    """A linear truth is told in both halves; one with another sign in each is told wrong in both."""
    x = stream(0)
    for sign, least, most in ((1.0, 0.999, 1.0), (-1.0, -4.0, -2.0)):
        z = x.data @ [1.0, -2.0, 0.5] * np.where(x.segment == 0, 1.0, sign)
        truth = Gathered(Spec(rate=20, channels=("f",)), z[:, None], x.times, x.segment)
        both = across(x, truth, Ridge(alpha=0.0))
        assert [rows for *_, rows in both] == [160, 140]
        assert all(least < r2 <= most for r2, *_ in both), both


@pytest.mark.slow
def test_slip_is_told_by_what_has_moved(data: Callable[[str], Path]) -> None:
    """At the end of a sequence, not at its start; and the level of the magnetometers tells the session before that."""
    data("eflesh/slip_sequences.npz")
    graph = config("slip")
    two = {name: decoders(graph)[name] for name in ("level", "logistic")}
    found = {name: (said, label) for name, said, label in sequences_apart(graph, np.arange(92) % 4, two)}
    said, label = found["logistic"]
    assert said.shape == (92, 300) and label.sum() == 70
    ends = [auc(said[:, [k]], label[:, None]) for k in (5, 224, 299)]
    assert ends[0] < 0.7 and min(ends[1:]) > 0.9, ends
    assert accuracy(said[:, -1], label) > 0.85
    assert auc(found["level"][0][:, [5]], label[:, None]) > 0.95


def test_force_is_told_by_a_ridge(data: Callable[[str], Path]) -> None:
    """Across recordings, with the gaps and the jitter of both streams."""
    data("eflesh/normal_force/20250401_014340_probe/sensor.csv.gz")
    graph = config("force")
    given = gather(graph, ["skin", "grid", "force"])
    skin, truth = given["skin"], given["force"]
    assert np.diff(skin.times).max() > 30 and len(np.unique(skin.segment)) == 40, "each pause opens a segment"
    assert np.quantile(np.diff(skin.times), [0.1, 0.9]) == pytest.approx([0.07, 0.135], abs=0.005)
    assert len(truth.times) == 3720 and np.isfinite(truth.data).all() and truth.data.min() >= 0
    assert np.isfinite(given["grid"].data).all()
    for name in ("ridge", "ridge_5"):
        node, source = decoders(graph)[name]
        assert all(r2 > 0.98 for r2, *_ in across(given[source], truth, node))


def test_what_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["taste"])
    assert "invalid choice: 'taste'" in capsys.readouterr().err
