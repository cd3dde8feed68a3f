"""Where the targets of a cursor task stand, in which order, how large they are and how they are taken.

centre_out  eight targets around the centre; each trial begins in the centre. Georgopoulos, Kalaska, Caminiti &
            Massey 1982, J. Neurosci. 2:1527; sizes and times as radial8.
radial8     out to one of eight targets and back. Brandman et al. 2018, J. Neural Eng. 15:026007: 12.1 cm from the
            centre, 2.4 cm across, held for 0.3 s within 5 s (15 s in the sessions of participant T9).
fitts       targets of 1.6, 3.5 and 5.6 cm anywhere, held for 0.5 s within 10 s: mFitts1 of the same group
            (Simeral et al. 2011, J. Neural Eng. 8:025027).
grid        one of 6 x 6 cells of a square of 24.2 cm, each of which is selected by 1 s in it, the wrong ones too.
            Nuyujukian et al. 2015, IEEE Trans. Biomed. Eng. 62:21. The time-out of 10 s is ours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CURSOR = 0.015
"""m: diameter of the cursor."""
CELLS = 6
"""Cells on a side of the grid."""
DRAWN = 4096
"""Trials drawn; after them the same targets come again."""
TRIES = 1000
"""Places tried for one target before it is said that there is no room."""


class Kind(NamedTuple):
    """What is usual in a task: reach, m (see `sequence`); diameters of targets, m; time to hold one and time until
    it is given up, s."""

    reach: float
    sizes: tuple[float, ...]
    hold: float
    timeout: float


KINDS = {
    "centre_out": Kind(0.121, (0.024,), 0.3, 5.0),
    "radial8": Kind(0.121, (0.024,), 0.3, 5.0),
    "fitts": Kind(0.121, (0.016, 0.035, 0.056), 0.5, 10.0),
    "grid": Kind(0.121, (0.242 / CELLS,), 1.0, 10.0),
}


def sequence(task: str, reach: float, sizes: tuple[float, ...], seed: int) -> NDArray[np.float64]:
    """The targets (DRAWN, 3) of a task: x, y of the centre and radius (of a cell: half its side), m.

    reach  centre_out, radial8: distance from the centre to the eight; fitts, grid: half the side of the square that
           targets lie in
    sizes  diameters, m; with several, all come before any comes twice

    Targets of one trial and the next differ; those of fitts do not touch. Raises ValueError where there is no room.
    """
    rng = np.random.default_rng(seed)
    radius = _rounds(rng, len(sizes))
    found = np.zeros((DRAWN, 3))
    found[:, 2] = np.asarray(sizes)[radius] / 2
    if task == "grid":
        step = rng.integers(1, CELLS**2, DRAWN)  # never 0: another cell than the last
        cell = np.cumsum(step) % CELLS**2
        side = 2 * reach / CELLS
        found[:, 0] = (cell % CELLS + 0.5) * side - reach
        found[:, 1] = (cell // CELLS + 0.5) * side - reach
        found[:, 2] = side / 2
    elif task == "fitts":
        last = np.zeros(3)
        for k in range(DRAWN):
            found[k, :2] = _place(rng, reach, last, found[k, 2])
            last = found[k]
    else:
        out = slice(None, None, 2 if task == "radial8" else 1)
        angle = _rounds(rng, 8)[: len(found[out])] * math.pi / 4
        found[out, :2] = np.round(reach * np.stack([np.cos(angle), np.sin(angle)], axis=1), 9)  # cos(90°) is 0
    return found


def _rounds(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """DRAWN numbers below n: each once in an order by chance, then each again."""
    return np.concatenate([rng.permutation(n) for _ in range(-(-DRAWN // n))])[:DRAWN]


def _place(rng: np.random.Generator, reach: float, last: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """A place (2,) for a disc inside the square that does not touch the last one."""
    for _ in range(TRIES):
        at: NDArray[np.float64] = rng.uniform(radius - reach, reach - radius, 2) if reach > radius else np.zeros(2)
        if math.dist(at, last[:2]) > radius + last[2]:
            return at
    raise ValueError("no room for a target beside the last one")
