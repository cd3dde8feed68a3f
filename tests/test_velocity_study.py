"""The study of sequence models: what it learns from, what it scores, and that it does nothing twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rheobase.stream.block import Spec, numbered
from rheobase.tools import velocity
from rheobase.tools.velocity import K, Recorded, chosen, joined, main, model, part, read, scored


def small(T: int = 400) -> Recorded:
    """Six short trials; z is what a leak keeps of x."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6 * T, 3))
    z = np.zeros_like(x)
    for t in range(1, len(x)):
        z[t] = 0.8 * z[t - 1] + x[t]
    z[50:60] = np.nan
    return Recorded(x, z, np.repeat(velocity.TRIALS, T), Spec(rate=95, channels=numbered("x", 3)))


def test_what_is_learnt_from() -> None:
    data = small()
    x, z, segment = part(data, ["02", "12"])
    assert np.array_equal(x[400:], data.x[800:1200]) and segment.tolist() == [0] * 400 + [1] * 400
    assert np.array_equal(z[400:, :3], data.z[800:1200])
    assert np.isnan(z[400 : 400 + K - 1, 3:]).all(), "nothing lies before a trial"
    assert np.array_equal(z[420, 3:], data.z[820 - K + 1])
    half, _, _ = part(data, ["10"], 0.5)
    assert np.array_equal(half, data.x[500:700])
    assert joined(data.z).shape == (2400, 6)


def test_what_is_scored() -> None:
    """The last row of each chunk; of a model that knows the answer nothing is wrong but where there is none."""

    class Knowing:
        def predict(self, x: Any) -> Any:
            return joined(data.z)[:400] + np.eye(6)[0]

    data = small()
    found = scored(Knowing(), data, ["02"])
    assert found["mse"] == pytest.approx(1 / 3) and found["ahead"] == 0
    assert found["axes"] == pytest.approx([1, 0, 0]) and found["trials"] == {"02": pytest.approx(1 / 3)}
    assert found["r2"][1] == 1 and found["r2"][0] < 1


def test_all_models_have_about_the_same_weights() -> None:
    for name in ("lstm", "s4d", "s4/transformer", "mamba/s4d"):
        weights = velocity.count(model(name, velocity.width(name)))
        assert abs(weights / velocity.WEIGHTS - 1) < 0.06, name


@pytest.mark.slow
def test_the_study_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    asked: list[str] = []
    monkeypatch.setattr(velocity, "recorded", lambda features: asked.append(features) or small())
    monkeypatch.setattr(velocity, "TAUGHT", velocity.TAUGHT | {"chunks": 4, "epochs": 1})
    monkeypatch.setattr(velocity, "width", lambda name: 4)
    words = ["--file", str(tmp_path / "v.jsonl"), "--seeds", "2", "--models", "lstm", "--ways", "back"]
    assert main(words) == 0
    rows = read(tmp_path / "v.jsonl")
    assert [(r["name"], r["seed"]) for r in rows] == [("ridge", 0), ("ridge, 1 lag", 0), ("lstm", 0), ("lstm", 1)]
    assert len(chosen(rows)) == 4
    assert main(words) == 0
    assert read(tmp_path / "v.jsonl") == rows
    assert "lstm" in capsys.readouterr().out and asked == ["inputs", "inputs"]
    assert main(["--models", "lstmm"]) == 1
    assert "no model 'lstmm'" in capsys.readouterr().err
