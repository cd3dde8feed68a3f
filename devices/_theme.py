"""The colours of a window, dark or light, which people with any colour vision tell apart.

Lines: Okabe & Ito ("Color universal design", 2008). Amounts: viridis. Signed amounts: blue and orange, which meet in
the colour of the ground, so that zero is not there to be seen.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PySide6.QtGui import QColor


class Theme(NamedTuple):
    """Colours as #rrggbb. `grid` is for lines that guide the eye, `dim` for words that are not news."""

    ground: str
    panel: str
    grid: str
    ink: str
    dim: str
    blue: str
    orange: str
    green: str
    yellow: str
    red: str
    pink: str

    @property
    def lines(self) -> tuple[str, ...]:
        """Of streams that lie one over the other."""
        return self.blue, self.orange, self.green, self.pink, self.yellow, self.red

    @property
    def states(self) -> tuple[str, ...]:
        """Of states; the next one begins anew."""
        return *self.lines, self.dim, "#4477aa" if self is DARK else "#332288"


DARK = Theme(
    "#101418", "#151a1f", "#2b333c", "#e6e9ec", "#8b96a2",
    "#56b4e9", "#e69f00", "#009e73", "#f0e442", "#d55e00", "#cc79a7",
)  # fmt: skip
LIGHT = Theme(
    "#f6f7f8", "#ffffff", "#d3d8dd", "#1b1f23", "#5d6873",
    "#1a7fc4", "#c77700", "#00664a", "#a08c00", "#c04a00", "#b84f8a",
)  # fmt: skip
THEMES = {"dark": DARK, "light": LIGHT}


@functools.cache
def of_state(theme: Theme, state: int) -> str:
    """The colour of a state of wear, each worse than the one before: from blue over green, yellow and orange to red,
    which stands for the worst there could be. It does not depend on what other states were seen."""
    table = between(theme.blue, theme.green, theme.yellow, theme.orange, theme.red)
    s = max(state, 0)
    return "#{:02x}{:02x}{:02x}".format(*table[round(255 * s / (s + 4))])


def rgb(colour: str) -> NDArray[np.float64]:
    """#rrggbb -> (3,), 0 to 255."""
    return np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)], float)


def fading(colour: str) -> NDArray[np.uint8]:
    """A table (256, 4) from nothing to a colour, by opacity."""
    table = np.empty((256, 4), np.uint8)
    table[:, :3], table[:, 3] = rgb(colour), np.arange(256)
    return table


def between(*colours: str, n: int = 256) -> NDArray[np.uint8]:
    """A table (n, 3) that goes from colour to colour in even steps."""
    at = np.linspace(0, 1, len(colours))
    each = np.array([rgb(c) for c in colours])
    return np.stack([np.interp(np.linspace(0, 1, n), at, each[:, k]) for k in range(3)], axis=1).astype(np.uint8)


def signed(theme: Theme) -> NDArray[np.uint8]:
    """A table (256, 3) for numbers of both signs: blue below, orange above."""
    low, high = ("#bfe4ff", "#ffe0a3") if theme is DARK else ("#003f6b", "#6b3400")
    return between(low, theme.blue, theme.panel, theme.orange, high)


def clear(colour: str, opacity: float) -> QColor:
    """A colour that lets through what lies below."""
    c = QColor(colour)
    c.setAlphaF(opacity)
    return c
