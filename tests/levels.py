"""Sequence models that tests of several files need: as learning starts from them, and their whole output at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

F = NDArray[np.float64]
KINDS = ("s4d", "s4", "mamba", "lstm", "transformer")


def weights(path: Path, prefix: str = "param.") -> dict[str, F]:
    with np.load(path) as z:
        return {k.removeprefix(prefix): z[k] for k in z.files}


def held(node: Any, n: int = 3, d: int = 2, rate: float = 50.0, like: Any = None) -> Any:
    """A model as learning starts from it."""
    arrays = like or node.begin(np.random.default_rng(1), rate, n, d)
    ends = dict(x_mean=np.linspace(0.1, 0.3, n), x_scale=np.arange(1.0, n + 1), best=np.array(0.0))
    return node.hold({**ends, **arrays}, {"n": n, "rate": rate}, {"channels": [f"z{i}" for i in range(d)], "unit": ""})


def batch(node: Any, X: F, dtype: str = "float64") -> F:
    """The whole of X at once, by torch."""
    torch = pytest.importorskip("torch")
    p = {k: torch.tensor(v, dtype=getattr(torch, dtype)) for k, v in node.arrays.items()}
    x = (X - node.arrays["x_mean"]) / node.arrays["x_scale"]
    with torch.no_grad():
        y: F = node.forward(p, torch.tensor(x, dtype=getattr(torch, dtype))[None], lambda u: u)[0].double().numpy()
    return y


def small(kind: str, **more: Any) -> dict[str, Any]:
    usual = {"mamba": {"states": 4}, "s4d": {"states": 8}, "s4": {"states": 8}, "transformer": {"context": 5}}
    return {"type": kind, "width": 6, "layers": 2, **usual.get(kind, {}), **more}


def mixer(w: dict[str, F]) -> dict[str, F]:
    """One mixer of the authors in our letters."""
    return {
        "W_in": w["in_proj.weight"].T, "w": w["conv1d.weight"][:, 0].T, "c": w["conv1d.bias"],
        "W_x": w["x_proj.weight"].T, "W_dt": w["dt_proj.weight"].T, "b_dt": w["dt_proj.bias"],
        "A_log": w["A_log"].T, "D": w["D"], "W_out": w["out_proj.weight"].T,
    }  # fmt: skip
