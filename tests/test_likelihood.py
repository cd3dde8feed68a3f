"""`rheo fit` of what learns without a truth: scored by the likelihood of held-out time."""

from pathlib import Path

import numpy as np
import pytest
import rich.console

from rheobase.nodes.hmm_glm import HmmGlm
from rheobase.stream.block import StreamError
from rheobase.stream.files import load_model
from rheobase.stream.graph import parse
from rheobase.tools.fit import evaluate, fit
from rheobase.tools.likelihood import Likelihoods

GRAPH = """
name: mind
nodes:
  cells:  {{type: replay, file: {0}/x.csv, rate: 10}}
  states: {{type: hmm_glm, in: cells, states: 2, link: exp, restarts: 1}}
eval: {{train: [0, 60], test: [60, 80]}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng, z = np.random.default_rng(0), np.repeat([0, 1, 0, 1, 0, 1, 0, 1], 100)
    np.savetxt(tmp_path / "x.csv", rng.poisson(np.exp(rng.normal(0, 1, (2, 4)))[z]), delimiter=",")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_states_are_fitted_and_scored_beside_plainer_models(folder: Path) -> None:
    scores = fit(parse(GRAPH.format(folder), "mind.yaml"), "states")
    assert isinstance(scores, Likelihoods)
    assert [r.name for r in scores.rows] == ["states", "no coupling", "one state", "rate"]
    states, _, one, rate = (r.bits for r in scores.rows)
    assert states > 0.01 + one and rate == 0
    x = np.loadtxt(folder / "x.csv", delimiter=",")
    again = HmmGlm(states=2, link="exp", restarts=1).fit(x[:600])
    log_p = again.predict(x[600:])[:, 3].sum()
    mean = HmmGlm(states=1, link="exp", history="none").fit(x[:600]).predict(x[600:])[:, 2].sum()
    np.testing.assert_allclose(states, (log_p - mean) / np.log(2) / x[600:].sum(), rtol=1e-9)
    arrays, header = load_model("models/mind_states.npz")
    np.testing.assert_array_equal(arrays["W"], again.arrays["W"])
    assert header["held_out"]["bits"] == states and header["rows"] == 600
    console = rich.console.Console(record=True, width=100)
    scores.show(console)
    text = console.export_text()
    assert "bits/spike" in text and f"{states:.4f}" in text and "wrote models/mind_states.npz" in text


def test_a_one_hot_prior_is_held_against_plain_ones(folder: Path) -> None:
    text = GRAPH.format(folder).replace("restarts: 1", "restarts: 1, prior: onehot")
    scores = fit(parse(text, "mind.yaml"), "states")
    assert [r.name for r in scores.rows] == ["states", "no coupling", "one state", "rate"]
    assert Path("models/mind_states.npz").exists()


def test_a_graph_that_plays_to_itself_is_fitted_on_what_it_plays(folder: Path) -> None:
    pytest.importorskip("pylsl")
    text = GRAPH.format(folder).replace(
        "  states:",
        "  play:   {type: lsl_out, in: cells, stream: Played, now: true}\n"
        "  heard:  {type: lsl, stream: {name: Played}}\n  states:",
    )
    scores = fit(parse(text.replace("in: cells, states", "in: heard, states"), "mind.yaml"), "states")
    assert scores.rows[0].name == "states"


def test_without_a_truth_there_is_nothing_to_evaluate(folder: Path) -> None:
    with pytest.raises(StreamError, match="no node to evaluate"):
        evaluate(parse(GRAPH.format(folder), "mind.yaml"))
