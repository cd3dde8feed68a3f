"""What computes and what connects: `Node`, and its three kinds `Kernel`, `Source`, `Sink`.

A node is a class in a file of its own; the file's name is its type in a config. Its annotated attributes are
its parameters (SI units; the string under each says what it means), checked when it is made:

    class Gain(Kernel):
        \"\"\"y = factor x.\"\"\"

        factor: float = 1.0
        \"\"\"Gain, dimensionless.\"\"\"

        def start(self, x: Spec) -> Spec:
            self.params = GainParams(factor=self.factor)
            return x

        @staticmethod
        @kernel
        def step(params, state, t, x, y):
            for i in range(x.shape[0]):
                y[i] = params.factor * x[i]
            return True
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import importlib
import inspect
import math
import pkgutil
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, dataclass_transform

import msgspec

from rheobase.stream.block import Block, Spec, StreamError

F = TypeVar("F", bound=Callable[..., Any])

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Seed = Annotated[int, msgspec.Meta(ge=0)]


def kernel(f: F) -> F:
    """Compile a function that runs inside the loop.

    Its array arguments must not overlap where one of them is written. Not cached here: the fused loop that it
    becomes part of is (`fuse.py`).
    """
    from rheobase.stream.fuse import compiled  # numba takes half a second, which processes without kernels save

    return typing.cast(F, compiled(f))


def routine(f: F) -> F:
    """Compile a function that the loop calls, where `kernel` makes it a part of the loop.

    For what is long: it is compiled once for all loops that differ only in sizes, which it does not know.
    """
    from rheobase.stream.fuse import compiled

    return typing.cast(F, compiled(f, inline=False))


def _nobody(what: dict[str, Any]) -> None:
    raise StreamError("asked outside of a run: nobody is there to do it")


@dataclass_transform(kw_only_default=True, field_specifiers=(dataclasses.field,))
@dataclasses.dataclass(kw_only=True, eq=False)
class Node:
    """Takes blocks, gives blocks. Override `process`, and `start` where the output is not like the input.

    A node of several inputs is driven by the first: `process(x, *others)` gets each other input sampled and
    held at the times of x (`others[i].data[k]` is the last sample at or before `x.times[k]`, NaN before the
    first), so that the result depends on times, never on the order of arrival.
    """

    policy: ClassVar[str] = "block"
    """What its input edges do when it is slow and lives in another process: see `link.py`."""
    own_times: ClassVar[bool] = False
    """Whether it gives times that its first input does not have."""
    spare: ClassVar[bool] = False
    """Whether the others can do without it: its process is started again where the config does not say."""

    name: str = dataclasses.field(default="", init=False, repr=False)
    """Its name in the graph. Set by the engine before `start`, as are those below."""
    inputs: tuple[str, ...] = dataclasses.field(default=(), init=False, repr=False)
    """Names of the nodes it listens to."""
    folder: Path | None = dataclasses.field(default=None, init=False, repr=False)
    """The run directory, where there is one."""
    attempt: int = dataclasses.field(default=0, init=False, repr=False)
    """How often a process of this run has had this node before, and died."""
    ends: bool = dataclasses.field(default=True, init=False, repr=False)
    """Whether its stream ends where it stops; False: another process will go on with it."""
    config: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)
    """The whole graph as plain values, as `Graph.to_dict` gives it."""
    tell: Callable[[dict[str, Any]], None] = dataclasses.field(default_factory=lambda: _nobody, init=False, repr=False)
    """Ask something of the graph that runs, from any thread. There is one thing to ask: {"swap": {"node": NAME,
    "model": FILE}} makes that decoder go on with that model, between two samples."""

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        dataclasses.dataclass(kw_only=True, eq=False)(cls)

    def check(self) -> None:
        """What can be checked before any stream is there: files, models. Raises StreamError."""

    def start(self, *inputs: Spec) -> Spec | None:
        """Allocate, forget all that was, and say what will come out, once the Spec of each input is known.

        Raises StreamError where the inputs do not suit.
        """
        return inputs[0] if inputs else None

    def process(self, *inputs: Block) -> Block | None:
        """Blocks in, a block out (None: nothing yet). Must not change what it is given."""
        raise NotImplementedError(f"{type(self).__name__} has no process()")

    def stop(self) -> None:
        """The stream has ended: close what is open. Called once after every start that went live."""

    @classmethod
    def parameters(cls) -> dict[str, Any]:
        """Its parameters and their types."""
        hints = typing.get_type_hints(cls, include_extras=True)
        return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}

    @classmethod
    def make(cls: type[N], **values: Any) -> N:
        """An instance from plain values (of a config), each checked and converted.

        Raises StreamError that names the key and the nearest right word.
        """
        types = cls.parameters()
        done = {}
        for key, value in values.items():
            if key not in types:
                raise StreamError(f"unknown key {key!r}{nearest(key, types)}")
            try:
                done[key] = msgspec.convert(value, types[key], strict=False)
            except msgspec.ValidationError as e:
                why = f"{str(e)[:1].lower()}{str(e)[1:]}"
                if isinstance(value, str) and (words := _words(types[key])):
                    why = f"unknown value {value!r}{nearest(value, words)}"
                raise StreamError(f"{key}: {why}") from None
            if isinstance(done[key], float) and not math.isfinite(done[key]):
                raise StreamError(f"{key}: must be finite, got {done[key]}")
        for f in dataclasses.fields(cls):
            empty = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
            if f.init and empty and f.name not in done:
                raise StreamError(f"needs {f.name!r}")
        return cls(**done)

    @classmethod
    def meanings(cls) -> dict[str, str]:
        """The string under each parameter."""
        found: dict[str, str] = {}
        for c in reversed(cls.__mro__):
            if c in (Node, Kernel, Source, Sink, object):
                continue
            body = ast.parse(textwrap.dedent(inspect.getsource(c))).body[0]
            assert isinstance(body, ast.ClassDef)
            for line, after in zip(body.body, body.body[1:], strict=False):
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    text = after.value.value if _is_text(after) else ""  # type: ignore[attr-defined]
                    found[line.target.id] = " ".join(text.split())
        return {k: found.get(k, "") for k in cls.parameters()}


N = TypeVar("N", bound=Node)


class Kernel(Node):
    """One input, one sample at a time, compiled. Neighbours in a process become one loop (`fuse.py`).

    `start` sets `params` and `state`, each a NamedTuple of float64 or int64 arrays (in `params` also of
    floats, ints and bools; either may hold another such NamedTuple). After the graph has started, the fields
    of `state` are views of the memory that the loop works on; a checkpoint is a copy of it.

    `step(params, state, t, x, y)`: x (c,) is one sample at t s; write y (c_out,) and return True, or return
    False for no output now. It allocates nothing, reads no clock, changes neither x nor params. It may be
    set on the instance in `start` where the arithmetic depends on a parameter.
    """

    resets: ClassVar[bool] = True
    """Whether its state returns to the start at a new segment (after a gap or a clock reset)."""

    kept: ClassVar[tuple[str, ...]] = ()
    """Fields of its state that do not: what counts from the start of a run on."""

    params: Any = dataclasses.field(default=(), init=False, repr=False)
    state: Any = dataclasses.field(default=(), init=False, repr=False)

    step: ClassVar[Callable[..., bool]]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "step"}  # the next start() makes it again


class Source(Node):
    """Where samples enter. `start()` finds the stream and says what it is; `blocks()` opens it and gives it."""

    live: ClassVar[bool] = True
    """False: reads a file, as fast as it is asked."""

    def start(self, *inputs: Spec) -> Spec | None:
        raise NotImplementedError(f"{type(self).__name__} has no start()")

    def blocks(self) -> Iterator[Block | None]:
        """Blocks as they come; None at least every 0.1 s while nothing comes; returns at the end."""
        raise NotImplementedError(f"{type(self).__name__} has no blocks()")


class Sink(Node):
    """Where samples leave. Takes blocks of each input as they come, unaligned."""

    def take(self, i: int, x: Block) -> None:
        """A block of input i."""
        raise NotImplementedError(f"{type(self).__name__} has no take()")

    def loop(self, stopped: Callable[[], bool]) -> bool:
        """For what must own the main thread (a window): return True when it is done, False at once if not needed.

        Blocks arrive by `take` from another thread meanwhile.
        """
        return False


def nearest(word: str, among: Iterable[str]) -> str:
    """ "; did you mean 'rate'?" or, where nothing is near, what there is."""
    words = sorted(among)
    close = difflib.get_close_matches(word, words, 1, 0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there is {', '.join(words)}" if words else ""


@contextlib.contextmanager
def blame(node: Node) -> Iterator[None]:
    """Put the node's name and type before what goes wrong in it."""
    try:
        yield
    except Exception as e:
        if not node.name:
            raise
        what = f"node {node.name!r} ({type_name(type(node))}): "
        if isinstance(e, StreamError):
            raise StreamError(what + str(e)) from e.__cause__
        raise StreamError(f"{what}{type(e).__name__}: {e}") from e


def types() -> dict[str, str]:
    """Every type that comes with rheobase: its name in a config -> module."""
    found = {}
    for package in ("rheobase.nodes", "rheobase.devices"):
        for m in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if not m.name.startswith("_"):
                found[m.name] = f"{package}.{m.name}"
    return found


def load(name: str) -> type[Node]:
    """The class behind a type in a config: a file of nodes/ or devices/, or anyone's 'package.module:Class'.

    Raises StreamError with the nearest right word.
    """
    module, _, attribute = name.partition(":")
    if attribute:
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
    else:
        known = types()
        if name not in known:
            raise StreamError(f"unknown type {name!r}{nearest(name, known)}")
        module = known[name]
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if attribute and module.startswith(e.name or "?"):
            raise StreamError(f"type {name!r}: no module {e.name!r} in {Path.cwd()} or among the packages") from None
        raise StreamError(f"type {name!r} needs the package {e.name!r}: pip install 'rheobase[all]'") from None
    except Exception as e:
        raise StreamError(f"type {name!r}: {module} cannot be loaded: {type(e).__name__}: {e}") from e
    if attribute:
        cls = getattr(found, attribute, None)
        if cls is None:
            raise StreamError(f"type {name!r}: no class {attribute!r} in {module}{nearest(attribute, _nodes(found))}")
    else:
        cls = next(iter(_nodes(found).values()))
    if not (isinstance(cls, type) and issubclass(cls, Node)):
        raise StreamError(f"type {name!r} is not a rheobase Node")
    return cls


def type_name(cls: type[Node]) -> str:
    """The word that a config uses for a class (the inverse of `load`)."""
    package, _, word = cls.__module__.rpartition(".")
    if package in ("rheobase.nodes", "rheobase.devices"):
        return word
    return f"{cls.__module__}:{cls.__qualname__}"


def _nodes(module: Any) -> dict[str, type[Node]]:
    members = inspect.getmembers(module, lambda m: isinstance(m, type) and issubclass(m, Node))
    return {k: c for k, c in members if c.__module__ == module.__name__}


def _words(hint: Any) -> list[str]:
    """The words that a type allows: those of its Literal."""
    if typing.get_origin(hint) is Literal:
        return [w for w in typing.get_args(hint) if isinstance(w, str)]
    return [w for part in typing.get_args(hint) for w in _words(part)]


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
