"""`rheo new node NAME`: the file and the test of a new node, which pass the contract as they are."""

from __future__ import annotations

import keyword
from pathlib import Path

from rheobase.stream.block import StreamError
from rheobase.stream.node import types

HEAD = '''"""{title}: say here what it computes, and where that is from."""

from __future__ import annotations
'''

BODIES = {
    "kernel": '''
from typing import Any

from rheobase.stream.node import Kernel, kernel


class {cls}(Kernel):
    """y[c] = x[c]: say the equation, the units, and what a missing value does."""

    @staticmethod
    @kernel
    def step(params: Any, state: Any, t: float, x: Any, y: Any) -> bool:
        """x (c,) -> y (c,)."""
        for i in range(x.shape[0]):
            y[i] = x[i]
        return True
''',
    "node": '''
from rheobase.stream.block import Block
from rheobase.stream.node import Node


class {cls}(Node):
    """y = x: say the equation, the units, and what a missing value does."""

    def process(self, x: Block) -> Block:  # type: ignore[override]
        """x (n, c) -> y (n, c)."""
        return x.replace(data=x.data * 1.0)
''',
    "source": '''
from collections.abc import Iterator

import numpy as np

from rheobase.stream import clock
from rheobase.stream.block import Block, Spec
from rheobase.stream.node import Source


class {cls}(Source):
    """One channel of zeros at 10 Hz: say what device this is."""

    def start(self, *inputs: Spec) -> Spec:
        return Spec(rate=10, channels=("x",))

    def blocks(self) -> Iterator[Block | None]:
        begin, seq = clock.now(), 0
        while True:
            clock.wait_until(begin + seq / 10)
            yield Block(np.zeros((1, 1)), np.array([begin + seq / 10]), seq)
            seq += 1
''',
    "sink": '''
from rheobase.stream.block import Block, Spec
from rheobase.stream.node import Sink


class {cls}(Sink):
    """Counts samples: say where they go."""

    def start(self, *inputs: Spec) -> None:
        self.n = 0

    def take(self, i: int, x: Block) -> None:
        self.n += len(x)
''',
}

TEST = '''"""{cls}: held to the contract that every node must pass."""

import numpy as np
import pytest

from rheobase.stream.block import Block, Spec
from rheobase.stream.check import contract
from {module} import {cls}

SPEC = Spec(rate=100, channels=("a", "b"))


@pytest.mark.parametrize(("name", "check"), contract({cls}, SPEC))
def test_contract(name, check):
    check()
'''


def new_node(name: str, kind: str, folder: Path) -> list[Path]:
    """Write NAME.py and its test: into nodes/ or devices/ and tests/ of a checkout, else into `folder`.

    Raises StreamError where the name will not do or the file is there.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise StreamError(f"{name!r}: a node's name is a Python word in lower case, such as peak_rate")
    if name in types():
        raise StreamError(f"{name!r}: a node of this type is there: see `rheo nodes {name}`")
    cls = "".join(part.capitalize() for part in name.split("_"))
    package = "devices" if kind in ("source", "sink") else "nodes"
    house = (folder / "stream" / "node.py").exists() and (folder / package).is_dir()
    path = folder / package / f"{name}.py" if house else folder / f"{name}.py"
    module = f"rheobase.{package}.{name}" if house else name
    wrote = [path]
    texts = [HEAD.format(title=cls) + BODIES[kind].format(cls=cls)]
    if kind in ("kernel", "node"):
        wrote.append(folder / "tests" / f"test_{name}.py" if house else folder / f"test_{name}.py")
        texts.append(TEST.format(cls=cls, module=module))
    for file in wrote:
        if file.exists():
            raise StreamError(f"{file}: is there already")
    for file, text in zip(wrote, texts, strict=True):
        file.write_text(text)
    return wrote
