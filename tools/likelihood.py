"""How likely a decoder that learns without a truth finds held-out samples, beside plainer models of the same."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rich.console
import rich.table
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder
from rheobase.stream.block import Spec
from rheobase.tools.scores import resampled

F = NDArray[np.float64]


@dataclasses.dataclass
class Likelihood:
    """One model: bits a spike (of a stream without counts: a value) more than a Poisson rate (a normal) for each
    channel, its 95 % interval over blocks of 10 s, and s that the fit took.
    """

    name: str
    what: str
    bits: float
    interval: tuple[float, float] | None
    seconds: float


@dataclasses.dataclass
class Likelihoods:
    """What `rheo fit` found of a decoder that learns without a truth."""

    title: str
    per: str
    samples: int
    rows: list[Likelihood] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def show(self, console: rich.console.Console) -> None:
        """Print the table."""
        title = f"{self.title}: {self.samples} test samples, each told from those before it"
        table = rich.table.Table("model", "what", f"bits/{self.per}", "95 % interval", "fit, s", title=title)
        for column in table.columns[2:]:
            column.justify = "right"
        for r in self.rows:
            interval = "{:.4f} to {:.4f}".format(*r.interval) if r.interval else ""
            table.add_row(r.name, r.what, f"{r.bits:.4f}", interval, f"{r.seconds:.1f}")
        console.print(table)
        for note in self.notes:
            console.print(note, highlight=False, soft_wrap=True)

    def to_dict(self) -> dict[str, Any]:
        """The table as plain values."""
        return {r.name: dataclasses.asdict(r) for r in self.rows}


def compare(
    title: str,
    name: str,
    node: Decoder,
    features: Spec,
    X: F,
    segment: NDArray[np.int64],
    X_test: F,
    segment_test: NDArray[np.int64],
    times: F,
    told: Callable[[str], None] = lambda word: None,
) -> Likelihoods:
    """Fit a node that has `states`, and plainer ones, on X (T, n); score them on X_test by their own `score`."""
    neurons = X.shape[1] - node.covariates  # type: ignore[attr-defined]
    counts = node.emission != "gaussian"  # type: ignore[attr-defined]
    whole = np.where(np.isfinite(X_test[:, :neurons]), X_test[:, :neurons], 0)
    per = whole.sum(axis=1) if counts else np.full(len(whole), float(neurons))
    found = Likelihoods(title, "spike" if counts else "value", len(X_test))
    plain = dict(model="", prior="gaussian")
    alone = dict(plain, restarts=1, states=1)
    rivals: dict[str, tuple[str, Decoder, bool]] = {
        name: ("", node, True),
        "no coupling": ("the same states, each neuron for itself", _like(node, plain, history="none"), True),
        "one state": ("a GLM", _like(node, alone), True),
        "rate": ("a rate for each neuron", _like(node, alone, history="none", covariates=0), False),
    }
    if node.history == "none":  # type: ignore[attr-defined]
        del rivals["no coupling"]
    logs: dict[str, tuple[F, float, str]] = {}
    for word, (what, each, covariates) in rivals.items():
        columns = slice(None) if covariates else slice(neurons)
        began = time.perf_counter()
        if hasattr(each, "told"):
            each.told = lambda step, k, value, word=word: told(f"fit {word}: {step}, iteration {k}, {value:.1f} nats")
        given = features if covariates else features.replace(channels=features.channels[:neurons])
        each.fit(X[:, columns], segment=segment, inputs=given)  # type: ignore[call-arg]
        took = time.perf_counter() - began
        names = dataclasses.replace(each, lag=0, rates=False, adapt=0.0).hold(  # type: ignore[call-arg]
            each.arrays, each.header["in"], each.header["out"]
        )
        S = len(each.arrays["Pi"])
        logs[word] = names.predict(X_test[:, columns], segment_test)[:, S + 1], took, what or f"{S} states"
    base = logs["rate"][0]
    for word, (log_p, took, what) in logs.items():
        gain = np.stack([log_p, base], axis=1)
        draws = resampled(_bits, gain, per[:, None], times)
        interval = (float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))) if len(draws) else None
        found.rows.append(Likelihood(word, what, _bits(gain, per[:, None]), interval if word != "rate" else None, took))
    return found


def _bits(log_p: F, per: F) -> float:
    """Bits by which the first column (T, 2) is likelier than the second, for each of what `per` counts."""
    return float((log_p[:, 0] - log_p[:, 1]).sum() / math.log(2) / max(per.sum(), 1.0))


def _like(node: Decoder, *changes: dict[str, Any], **more: Any) -> Decoder:
    both: dict[str, Any] = {k: v for each in (*changes, more) for k, v in each.items()}
    return dataclasses.replace(node, **both)
