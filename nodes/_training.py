"""How a sequence model is learnt: by windows of a recording, with torch, on a CPU or a GPU.

A window is `span` samples of one segment, that begin anywhere, with a fresh state. A share of each segment, `held_out`,
is not learnt from (`split`): the weights kept are those of the epoch that predicts it best, and learning stops when
that was `patience` epochs ago. AdamW; its step rises over the first twentieth of the epochs, then falls as a cosine.
"""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import Training, spread
from rheobase.stream.block import Array, StreamError
from rheobase.stream.files import digest

WARM = 0.05
PIECES = 5
"""Of a segment, at most, each of which is judged by at its end."""
SLOWLY = 1e-3
"""Largest step of the dynamics of a state space (Gu et al.)."""

Arrays = dict[str, Array]


class Schedule(NamedTuple):
    """span: samples a window; every: samples from one estimate to the next; the rest as in `HiSS`."""

    span: int
    every: int
    lookahead: int
    batch: int
    epochs: int
    learning_rate: float
    decay: float
    dropout: float
    noise: float
    channel_dropout: float
    held_out: float
    patience: int
    seed: int
    device: str
    resume: str
    turned: tuple[list[tuple[int, int]], list[tuple[int, int]]]
    slow: frozenset[str]
    fixed: frozenset[str]


class Windows(NamedTuple):
    """x (T, n), z (T, d): z of the estimate at each row, standardised and 0 where there is none; good (T,); stretches:
    rows [i, e) of one segment each."""

    x: Any
    z: Any
    good: Any
    stretches: list[tuple[int, int]]


def scales(data: Training, turned: Sequence[Sequence[tuple[int, int]]] = ((), ())) -> tuple[Array, Array, Array, Array]:
    """Mean and standard deviation of x over all its finite values, and of z over the rows to learn from.

    Pairs that are turned have no mean, and one size for both: in another direction they are no other.
    """
    X = np.where(np.isfinite(data.X), data.X, np.nan)
    x_mean, x_scale = np.nanmean(X, axis=0), spread(X)
    z_mean, z_scale = data.Z[data.rows].mean(axis=0), spread(data.Z[data.rows])
    for pairs, mean, scale in ((turned[0], x_mean, x_scale), (turned[1], z_mean, z_scale)):
        for pair in map(list, pairs):
            scale[pair] = np.sqrt(np.mean(mean[pair] ** 2 + scale[pair] ** 2))
            mean[pair] = 0.0
    x_scale[x_scale == 0], z_scale[z_scale == 0] = 1.0, 1.0
    return x_mean, x_scale, z_mean, z_scale


def delayed(data: Training, lookahead: int) -> tuple[Array, NDArray[np.bool_]]:
    """Z and rows of `lookahead` samples before, in the same segment."""
    if not lookahead:
        return data.Z, data.rows
    Z, rows = np.full_like(data.Z, np.nan), np.zeros_like(data.rows)
    same = data.segment[lookahead:] == data.segment[:-lookahead]
    Z[lookahead:][same] = data.Z[:-lookahead][same]
    rows[lookahead:] = data.rows[:-lookahead] & same
    return Z, rows


def train(
    forward: Callable[[dict[str, Any], Any, Callable[[Any], Any]], Any],
    start: Arrays,
    data: Training,
    s: Schedule,
    like: dict[str, Any] | None,
    told: Callable[[int, int, float], None],
) -> Arrays:
    """The arrays of `start`, learnt, with x_mean, x_scale, z_mean, z_scale, and `best`, the epoch they are of.

    forward(p, x, drop) gives (batch, span / every, d) of x (batch, span, n), both standardised. told(epoch, epochs,
    error): after each epoch, with the error on what is held out, in variances of z. like: an earlier fit, whose
    epochs are kept (the step now falls to nothing over these), so that nothing needs holding out. Raises StreamError.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise StreamError("learning a sequence model needs the package torch: pip install 'rheobase[train]'") from None
    device = s.device if s.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise StreamError("device: there is no GPU that torch can use")
    x_mean, x_scale, z_mean, z_scale = scales(data, s.turned)
    Z, rows = delayed(data, s.lookahead)
    given = [
        torch.tensor(np.nan_to_num((data.X - x_mean) / x_scale, nan=0.0, posinf=0.0, neginf=0.0)).float(),
        torch.tensor(np.where(rows[:, None], (Z - z_mean) / z_scale, 0.0)).float(),
        torch.tensor(rows),
    ]
    x, z, good = (g.to(device) for g in given)
    held_out = 0.0 if like else s.held_out
    learn, judge = split(data.segment, held_out, s.span)
    if judge and not any(rows[i + s.every - 1 : e : s.every].any() for i, e in judge):
        raise StreamError("held_out: nothing of what is held out has a truth")
    epochs = int(like["best"]) if like else s.epochs
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)  # one order of sums: the same seed gives the same weights
    try:
        p = {k: torch.tensor(v, dtype=torch.float32, device=device) for k, v in start.items()}
        free = {k: w.requires_grad_() for k, w in p.items() if k not in s.fixed}
        slow = [w for k, w in free.items() if k in s.slow]
        rest = [w for k, w in free.items() if k not in s.slow]
        groups = [
            {"params": rest, "lr": s.learning_rate, "weight_decay": s.decay},
            {"params": slow, "lr": min(s.learning_rate, SLOWLY), "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW([g for g in groups if g["params"]])
        g = torch.Generator().manual_seed(s.seed)
        beside = g if device == "cpu" else torch.Generator(device).manual_seed(s.seed)
        turn = _turner(s, g)
        source = Windows(x, z, good, learn)
        per_epoch = math.ceil(sum(e - i for i, e in learn) / s.span)
        total = max(1, epochs * math.ceil(per_epoch / s.batch))
        pace = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: _pace(k / total))
        keep: dict[str, Any] = {"epoch": 0, "least": math.inf, "best": epochs, "arrays": _numbers(p)}
        learning = Learning(_name(start, data, s._replace(device=device), like), p, optimiser, pace, [g, beside])
        if s.resume:
            keep = _resumed(torch, s.resume, learning) or keep

        def drop(u: Any) -> Any:
            if not s.dropout:
                return u
            return u * (torch.rand(u.shape, generator=beside, device=u.device) >= s.dropout) / (1 - s.dropout)

        for epoch in range(keep["epoch"] + 1, epochs + 1):
            if epoch - keep["best"] > s.patience and judge:
                break
            for starts in _starts(learn, s.span, per_epoch, g).split(s.batch):
                u, target, known = _cut(source, starts.tolist(), s)
                if not known.any():
                    continue
                u, target = turn(u, target)
                if s.noise:
                    u = u + s.noise * torch.randn(u.shape, generator=g).to(device)
                if s.channel_dropout:
                    u = u * (torch.rand((len(u), 1, u.shape[2]), generator=g) >= s.channel_dropout).to(device)
                optimiser.zero_grad()
                (forward(p, u, drop) - target)[known].square().mean().backward()
                torch.nn.utils.clip_grad_norm_(list(free.values()), 1.0)
                optimiser.step()
                pace.step()
            keep["epoch"] = epoch
            error = math.nan
            if judge:
                error = _error(torch, forward, p, Windows(x, z, good, judge), s)
                if math.isnan(error):  # and stays so
                    break
                if error < keep["least"]:
                    keep |= {"least": error, "best": epoch, "arrays": _numbers(p)}
            else:
                keep["arrays"] = _numbers(p)
            told(epoch, epochs, error)
            if s.resume:
                _saved(torch, s.resume, learning, keep)
    finally:
        torch.set_num_threads(threads)
    if judge and not math.isfinite(keep["least"]):
        raise StreamError("learning diverged: a smaller learning_rate")
    best = np.array(float(keep["best"]))
    found: Arrays = keep["arrays"]
    return found | dict(x_mean=x_mean, x_scale=x_scale, z_mean=z_mean, z_scale=z_scale, best=best)


def split(
    segment: NDArray[np.int64], held_out: float, span: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Stretches of rows to learn from, and to judge by.

    A segment is cut into as many pieces, at most `PIECES`, as have a span to judge by; of each piece the last share is
    for that. So what happens only at the end of a recording (rest, say) is not all that counts. Raises StreamError
    where nothing is left to judge by.
    """
    edges = [0, *np.flatnonzero(np.diff(segment)) + 1, len(segment)]
    learn, judge = [], []
    for i, e in itertools.pairwise(edges):
        pieces = min(PIECES, int(held_out * (e - i) / span), int((1 - held_out) * (e - i) / span))
        if not pieces:
            learn.append((i, e))
            continue
        for a, b in itertools.pairwise(np.linspace(i, e, pieces + 1).astype(int).tolist()):
            cut = b - round(held_out * (b - a))
            learn.append((a, cut))
            judge.append((cut, b))
    if held_out and not judge:
        longest = max(np.diff(edges))
        raise StreamError(
            f"held_out: {held_out:g} of the longest segment, {longest} samples, is less than a span of {span}: "
            "a shorter span, or more data"
        )
    return learn, judge


def _pace(share: float) -> float:
    return min(share / WARM, 0.5 + 0.5 * math.cos(math.pi * min(share, 1.0))) if share > 0 else 1e-3


def _starts(stretches: Sequence[tuple[int, int]], span: int, n: int, g: Any) -> Any:
    """First rows of n windows, anywhere in the stretches (a window may reach beyond the end of one)."""
    import torch

    room = torch.tensor([max(1, e - i - span + 1) for i, e in stretches], dtype=torch.float64)
    which = torch.multinomial(room, n, replacement=True, generator=g)
    first = torch.tensor([i for i, _ in stretches])[which]
    offset = (torch.rand(n, generator=g, dtype=torch.float64) * room[which]).long()
    end = torch.tensor([e for _, e in stretches])[which]
    return torch.stack([first + offset, end], 1)


def _cut(w: Windows, starts: Sequence[Sequence[int]], s: Schedule) -> tuple[Any, Any, Any]:
    """x (b, span, n), z and whether it is good (b, span / every, d), (b, span / every)."""
    import torch

    first, end = (torch.tensor(v, device=w.x.device)[:, None] for v in zip(*starts, strict=True))
    t = first + torch.arange(s.span, device=w.x.device)
    at = torch.minimum(t, end - 1)
    last = at[:, s.every - 1 :: s.every]
    there = w.good[last] & (t < end)[:, s.every - 1 :: s.every]
    return w.x[at], w.z[last], there


def _error(torch: Any, forward: Callable[..., Any], p: dict[str, Any], w: Windows, s: Schedule) -> float:
    """Mean square over windows that follow one another."""
    starts = [(t, e) for i, e in w.stretches for t in range(i, e - s.every + 1, s.span)]
    total = count = 0.0
    with torch.no_grad():
        for k in range(0, len(starts), 4 * s.batch):
            u, target, there = _cut(w, starts[k : k + 4 * s.batch], s)
            r = (forward(p, u, lambda v: v) - target)[there]
            total += float(r.square().sum())
            count += r.numel()
    return total / count if count else math.nan


def _turner(s: Schedule, g: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Turns the pairs of channels of each window by one angle, drawn for it."""
    import torch

    pairs_x, pairs_z = s.turned

    def one(u: Any, pairs: list[tuple[int, int]], c: Any, sn: Any) -> Any:
        parts = list(u.unbind(-1))
        for a, b in pairs:
            parts[a], parts[b] = c * parts[a] - sn * parts[b], sn * parts[a] + c * parts[b]
        return torch.stack(parts, -1)

    def turn(u: Any, z: Any) -> tuple[Any, Any]:
        if not pairs_x:
            return u, z
        angle = (2 * math.pi * torch.rand(len(u), 1, generator=g)).to(u.device)
        c, sn = angle.cos(), angle.sin()
        return one(u, pairs_x, c, sn), one(z, pairs_z, c, sn)

    return turn


def _numbers(p: dict[str, Any]) -> Arrays:
    return {k: w.detach().cpu().numpy().astype(float) for k, w in p.items()}


DAMAGED = (
    OSError, KeyError, TypeError, ValueError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError,
)  # fmt: skip
"""What reading a file may raise that torch did not write so."""


class Learning(NamedTuple):
    """What learning goes on with: the name of the fit, weights, optimiser, its step, and all that draws."""

    name: str
    p: dict[str, Any]
    optimiser: Any
    pace: Any
    draws: list[Any]


def _name(start: Arrays, data: Training, s: Schedule, like: dict[str, Any] | None) -> str:
    """The same for two fits that must come out the same."""
    words = {k: sorted(v) if isinstance(v, frozenset) else v for k, v in s._asdict().items()}
    del words["resume"]
    text = repr((sorted(start), words, float(like["best"]) if like else None)).encode()
    arrays = (np.frombuffer(text, np.uint8), data.X, data.Z, data.rows, data.segment)
    return digest(*arrays, *(np.asarray(start[k]) for k in sorted(start)))


def _saved(torch: Any, path: str, now: Learning, keep: dict[str, Any]) -> None:
    """Whole or not at all."""
    kept = keep | {"arrays": {k: torch.tensor(v) for k, v in keep["arrays"].items()}}
    whole = {"name": now.name, "keep": kept, "p": {k: w.detach() for k, w in now.p.items()}}
    whole |= {"optimiser": now.optimiser.state_dict(), "pace": now.pace.state_dict()}
    part = Path(f"{path}.part")
    try:
        torch.save(whole | {"draws": [g.get_state() for g in now.draws]}, part)
        part.replace(path)
    except (OSError, RuntimeError) as e:
        raise StreamError(f"resume: {path} cannot be written: {e}") from None


def _resumed(torch: Any, path: str, now: Learning) -> dict[str, Any] | None:
    """What was kept, None where nothing was yet. Raises StreamError where the file is of another fit."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if not Path(path).exists():
            return None
        saved = torch.load(path, weights_only=True)
        if saved["name"] != now.name:
            raise StreamError(
                f"resume: {path} is of another fit (data, seed or other parameters): delete it, or name another file"
            )
        with torch.no_grad():
            for k, w in now.p.items():
                w.copy_(saved["p"][k])
        now.optimiser.load_state_dict(saved["optimiser"])
        now.pace.load_state_dict(saved["pace"])
        for g, state in zip(now.draws, saved["draws"], strict=True):
            g.set_state(state)
    except DAMAGED as e:
        raise StreamError(
            f"resume: {path} cannot be read: {str(e).splitlines()[0] if str(e) else type(e).__name__}"
        ) from None
    keep: dict[str, Any] = saved["keep"]
    return keep | {"arrays": {k: v.numpy() for k, v in keep["arrays"].items()}}
