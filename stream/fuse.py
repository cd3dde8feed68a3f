"""A tree of kernels becomes one compiled loop.

    source -> [ a -> b -> d      one function:   for each sample: if a: if b: if d: ...
                  \\-> c ]                                              if c: ...

The loop is written as Python source, with every size a constant, and compiled once without the GIL. Its
parameters and state lie in four flat arrays, so that a call from Python passes few arguments (37 ns each), a
checkpoint is a copy of two arrays, and a new model is a copy into two others between two samples.

Numba caches a function under its own source file only: change a helper in another file, and it returns the old
machine code. Here the file's name is a hash of everything the loop reaches, so a stale one is never found.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import importlib.util
import os
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numba
import numba.core.codegen
import numba.core.compiler
import numpy as np
from numba.extending import intrinsic
from numba.np import arrayobj
from numpy.typing import NDArray

from rheobase.stream.block import Array, Block, Spec, StreamError, numbered
from rheobase.stream.node import Kernel, blame
from rheobase.stream.pages import zeros

Buffers = tuple[NDArray[np.float64], NDArray[np.int64]]
_COMPILING = threading.Lock()


class _Inlined(numba.core.codegen.JITCodeLibrary):  # type: ignore[misc]
    """Machine code of a kernel: optimised in the loop that it goes into, which knows its sizes, and hardly before that.

    A loop then compiles in 0.6 of the time, and a DKF step takes 0.8 to 0.9 of it.
    """

    def _optimize_final_module(self) -> None:
        few = {"opt": 0, "loop_vectorize": False, "slp_vectorize": False, "cost": "cheap"}
        passes, builder = self._codegen._module_pass_manager(**few)
        passes.run(self._final_module, builder)


class _Apart(numba.core.compiler.Compiler):  # type: ignore[misc]
    """Tells the compiler that arguments do not overlap, as `restrict` does in C."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.state.flags.noalias = True

    def compile_extra(self, f: Callable[..., Any]) -> Any:
        if self.state.flags.forceinline:
            self.state.library = _Inlined(self.state.targetctx.codegen(), f.__qualname__)
            self.state.library.enable_object_caching()
        return super().compile_extra(f)


JIT = {"nogil": True, "error_model": "numpy", "forceinline": True, "pipeline_class": _Apart}
"""No fastmath: a sum must have one order, fused or alone.

Inlined, its sizes are constants to the compiler, since the loop knows them (`fuse.py`). With that and arguments
apart, a Kalman step (d = 4, n = 96) takes as long as in C, and 4 times as long without (`rheo bench decode`).
"""


def compiled(f: Callable[..., Any], inline: bool = True) -> Any:
    """A function that runs inside the loop; see `rheobase.stream.node.kernel` and `routine`."""
    return numba.njit(**JIT | {"forceinline": inline})(f)


class Loop:
    """Kernels in one loop.

    kernels  in an order where parents come first; the first is the root
    parents  for each, the index of the kernel it listens to (-1 for the root)
    heard    indices of those whose output somebody outside wants: only these are stored
    """

    def __init__(self, kernels: Sequence[Kernel], parents: Sequence[int], heard: Sequence[int]) -> None:
        self.kernels, self.parents, self.heard = list(kernels), list(parents), sorted(heard)
        self.specs: list[Spec] = []

    def start(self, x: Spec) -> list[Spec]:
        """Start every kernel afresh and compile (or find) the loop. Returns the Spec of each kernel's output."""
        self.specs = []
        self._n = x.n
        for k, p in zip(self.kernels, self.parents, strict=True):
            given = x if p < 0 else self.specs[p]
            with blame(k):
                if given.dtype == "str":
                    raise StreamError("takes numbers, and its input is text")
                k.params, k.state = (), ()
                out = k.start(given)
                if out is None:
                    raise TypeError("start() must return the Spec of what comes out")
            self.specs.append(out.replace(dtype="float64"))
        pack_p, pack_s = _Pack("p"), _Pack("s")
        made = []
        for k in self.kernels:
            with blame(k):
                made.append((pack_p.add(k.params), pack_s.add(k.state)))
        self.p, self.s = pack_p.buffers(), pack_s.buffers()
        self._slots = [(p.slot, s.slot) for p, s in made]
        self._layout = [(_shape(k.params), _shape(k.state)) for k in self.kernels]
        for k, (mine, own) in zip(self.kernels, made, strict=True):
            k.params, k.state = mine.view(*self.p), own.view(*self.s)
        self.s0 = self.checkpoint()
        with _COMPILING:
            self.run = _compile(*self._write(made))
        self.seq = [0] * len(self.heard)
        self.segment: int | None = None
        self.n_out = np.zeros(max(1, len(self.heard)), np.int64)
        self._widths = [self.specs[i].n for i in self.heard]
        return self.specs

    def process(self, block: Block) -> list[tuple[int, Block]]:
        """One block in; a block for each heard kernel (its index beside it) that gave something."""
        if block.segment != self.segment:
            if self.segment is not None:
                self._new_segment()
            self.segment = block.segment
        times, x = _plain(block.times), _plain(block.data)
        n = len(times)
        outs: list[Array] = []
        for c in self._widths:
            outs.append(np.empty(n))
            outs.append(np.empty((n, c)))
        self.run(*self.p, *self.s, times, x, self.n_out, *outs)
        given = []
        for j, i in enumerate(self.heard):
            m = int(self.n_out[j])
            if m:
                t, y = outs[2 * j : 2 * j + 2]
                if m < n:
                    t, y = t[:m], y[:m]
                given.append((i, Block(y, t, self.seq[j], block.segment)))
                self.seq[j] += m
        return given

    def checkpoint(self) -> Buffers:
        """A copy of the state of all kernels."""
        return self.s[0].copy(), self.s[1].copy()

    def restore(self, saved: Buffers) -> None:
        """Put a checkpoint back."""
        self.s[0][:], self.s[1][:] = saved

    def swap(self, i: int, params: Any, state: Any) -> None:
        """Give kernel i new parameters (of the same shapes), between two samples. What it remembers stays.

        state  what it will start from in the next segment, if it starts afresh there

        Raises StreamError where a shape differs.
        """
        self.suits(i, params, state)
        pack, start = _Pack("p"), _Pack("s")
        made = pack.add(params)
        start.add(state)
        slot = self._slots[i][0]
        for whole, new, where in ((self.p, pack.buffers(), slot), (self.s0, start.buffers(), self._slots[i][1])):
            for all_, part, (a, b) in zip(whole, new, where, strict=True):
                all_[a:b] = part[: b - a]
        made.slot = slot
        self.kernels[i].params = made.moved(slot).view(*self.p)

    def suits(self, i: int, params: Any, state: Any) -> None:
        """Raises StreamError where kernel i cannot go on with these parameters."""
        if (_shape(params), _shape(state)) != self._layout[i]:
            raise StreamError("new parameters of another shape: restart the graph")

    def _new_segment(self) -> None:
        for k, (_, slot) in zip(self.kernels, self._slots, strict=True):
            if k.resets:
                kept = [(getattr(k.state, word), getattr(k.state, word).copy()) for word in k.kept]
                for now, at_start, (a, b) in zip(self.s, self.s0, slot, strict=True):
                    now[a:b] = at_start[a:b]
                for now, before in kept:
                    now[...] = before

    def _write(self, made: list[tuple[_Slot, _Slot]]) -> tuple[str, dict[str, Any]]:
        """The loop's source, and what its names stand for."""
        plain = numba.config.DISABLE_JIT
        names: dict[str, Any] = {"part": _part if plain else _PART, "given": _part if plain else _GIVEN}
        outs = "".join(f", t{i}, o{i}" for i in self.heard)
        head = [f"def loop(pf, pi, sf, si, times, x, n_out{outs}):"]
        for i, (k, (p, s)) in enumerate(zip(self.kernels, made, strict=True)):
            names[f"step{i}"] = k.step
            head.append(f"    p{i} = {p.source(names)}")
            head.append(f"    s{i} = {s.source(names)}")
            head.append(f"    k{i} = 0" if i in self.heard else f"    y{i} = np.empty({self.specs[i].n})")
        x0 = f"given(x, k * {self._n}, ({self._n},))"
        body = ["    for k in range(times.shape[0]):", "        t = times[k]", f"        x0 = {x0}"]

        def visit(i: int, x: str, pad: str) -> None:
            if i in self.heard:
                n = self.specs[i].n
                body.append(f"{pad}y{i} = part(o{i}, k{i} * {n}, ({n},))")
            body.append(f"{pad}if step{i}(p{i}, s{i}, t, {x}, y{i}):")
            inner = len(body)
            if i in self.heard:
                body.append(f"{pad}    t{i}[k{i}] = t")
                body.append(f"{pad}    k{i} += 1")
            for child, parent in enumerate(self.parents):
                if parent == i:
                    visit(child, f"y{i}", pad + "    ")
            if len(body) == inner:
                body.append(f"{pad}    pass")

        visit(0, "x0", "        ")
        tail = [f"    n_out[{j}] = k{i}" for j, i in enumerate(self.heard)]
        return "\n".join(["import numpy as np", "", "", *head, *body, *tail, ""]), names


def apply(
    node: Any,
    data: Array,
    spec: Spec | None = None,
    times: Array | None = None,
    rate: float = 1.0,
    block: int = 0,
) -> Block:
    """Start a node afresh and run it alone over data (n, c): one Block of all it gave.

    spec   of the input (default: channels x0, x1, ... at `rate` Hz, times from 0)
    block  feed so many samples at a time (0: all at once); the result is the same
    """
    data = np.asarray(data)
    data = data[:, None] if data.ndim == 1 else data
    spec = spec or Spec(rate=rate, channels=numbered("x", data.shape[1]))
    if times is None:
        times = np.arange(len(data)) / (spec.rate or 1.0)
    whole = Block(data, np.asarray(times, np.float64))
    got: list[Block] = []
    size = block or max(1, len(data))
    parts = (whole.cut(a, min(a + size, len(data))) for a in range(0, len(data), size))
    if isinstance(node, Kernel):
        loop = Loop([node], [-1], [0])
        out = loop.start(spec)[0]
        for part in parts:
            got += [b for _, b in loop.process(part)]
    else:
        out = node.start(spec)
        got = [b for b in map(node.process, parts) if b is not None and len(b)]
    if not got:
        return Block(np.empty((0, out.n)), np.empty(0))
    return Block(np.concatenate([b.data for b in got]), np.concatenate([b.times for b in got]))


def _part(buffer: Array, at: int, shape: tuple[int, ...]) -> Array:
    """`shape` values of a contiguous array, from the one at flat index `at` on. A view."""
    return buffer.reshape(-1)[at : at + int(np.prod(shape))].reshape(shape)


def _compiled_part(readonly: bool) -> Any:
    """`_part`, with a shape that is constant to the compiler wherever it is in the source, and without counting
    references: what the loop is given outlives it. readonly: a step that writes to it does not compile.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def part(typing: Any, buffer: Any, at: Any, shape: Any) -> Any:
        made = numba.types.Array(buffer.dtype, len(shape), "C", readonly=readonly)

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            whole = context.make_array(buffer)(context, builder, args[0])
            view = context.make_array(made)(context, builder)
            sizes = [builder.extract_value(args[2], k) for k in range(len(shape))]
            strides: list[Any] = []
            step = whole.itemsize
            for size in reversed(sizes):
                strides.insert(0, step)
                step = builder.mul(step, size)
            first = builder.gep(whole.data, [args[1]])
            arrayobj.populate_array(view, first, sizes, strides, whole.itemsize, meminfo=None)
            return view._getvalue()

        return made(buffer, at, shape), build

    return part


_PART, _GIVEN = _compiled_part(readonly=False), _compiled_part(readonly=True)


def _plain(a: Array) -> NDArray[np.float64]:
    """As the compiled loop takes it. Writable, though nothing is written: numba recognises such arrays fastest."""
    flags = a.flags
    if flags.c_contiguous and flags.writeable and a.dtype == np.float64:
        return a
    a = np.ascontiguousarray(a, np.float64)
    return a if a.flags.writeable else a.copy()


class _Slot:
    """Where one NamedTuple lies in the flat buffers: knows its source in the loop and its view from Python."""

    def __init__(self, tag: str, value: Any, slot: list[list[int]], parts: list[Any]) -> None:
        self.tag, self.type, self.slot, self.parts = tag, type(value), slot, parts

    def source(self, names: dict[str, Any]) -> str:
        if self.type is tuple:
            return "()"
        word = next((w for w, c in names.items() if c is self.type), f"T{len(names)}")
        names[word] = self.type
        done = []
        for part in self.parts:
            if isinstance(part, _Slot):
                done.append(part.source(names))
                continue
            which, a, shape = part
            buffer = self.tag + "fi"[which]
            if shape is None:
                done.append(f"{buffer}[{a}]")
            else:
                done.append(f"{'given' if self.tag == 'p' else 'part'}({buffer}, {a}, {shape})")
        return f"{word}({', '.join(done)})"

    def view(self, f: Array, i: Array) -> Any:
        if self.type is tuple:
            return ()
        done: list[Any] = []
        for part in self.parts:
            if isinstance(part, _Slot):
                done.append(part.view(f, i))
                continue
            which, a, shape = part
            buffer = (f, i)[which]
            done.append(buffer[a].item() if shape is None else buffer[a : a + int(np.prod(shape))].reshape(shape))
        return self.type(*done)

    def moved(self, slot: list[list[int]]) -> _Slot:
        """The same fields, laid out from the start of another slot."""
        by = [slot[0][0], slot[1][0]]
        parts = [p.moved(slot) if isinstance(p, _Slot) else (p[0], p[1] + by[p[0]], p[2]) for p in self.parts]
        new = _Slot(self.tag, (), slot, parts)
        new.type = self.type
        return new


class _Pack:
    """Lays NamedTuples one after the other into a float64 and an int64 buffer."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.flat: tuple[list[Array], list[Array]] = ([], [])
        self.size = [0, 0]

    def add(self, value: Any) -> _Slot:
        if value is None:
            value = ()
        if not isinstance(value, tuple):
            raise TypeError(f"params and state must be NamedTuples, got {type(value).__name__}")
        start = list(self.size)
        parts: list[Any] = []
        for name, v in zip(getattr(value, "_fields", range(len(value))), value, strict=True):
            if isinstance(v, tuple):
                parts.append(self.add(v))
                continue
            v_array = np.asarray(v)
            which = 0 if v_array.dtype == np.float64 else 1
            if which and not (v_array.dtype == np.int64 or isinstance(v, bool | np.bool_)):
                raise TypeError(f"{type(value).__name__}.{name} must be float64 or int64, is {v_array.dtype}")
            if not isinstance(v, np.ndarray) and self.tag == "s":
                raise TypeError(f"{type(value).__name__}.{name}: state must be arrays, for the loop changes it")
            parts.append((which, self.size[which], v_array.shape if isinstance(v, np.ndarray) else None))
            self.flat[which].append(v_array.astype((np.float64, np.int64)[which]).ravel())
            self.size[which] += v_array.size
        return _Slot(self.tag, value, [[a, b] for a, b in zip(start, self.size, strict=True)], parts)

    def buffers(self) -> Buffers:
        made = zeros(self.size[0] + 1), zeros(self.size[1] + 1, np.int64)  # never empty: a slice would have no address
        for whole, parts in zip(made, self.flat, strict=True):
            if parts:
                np.concatenate(parts, out=whole[:-1])
        return made


def _shape(value: Any) -> Any:
    """What must stay the same when parameters are swapped."""
    if isinstance(value, tuple):
        return (type(value).__qualname__, *map(_shape, value))
    return np.shape(value), np.asarray(value).dtype.kind == "f"


def _compile(source: str, names: dict[str, Any]) -> Callable[..., None]:
    options = f"numba {numba.__version__} python {sys.version} bounds {numba.config.BOUNDSCHECK} {JIT}"
    reached = (f"{w}={'|'.join(reach(names[w], set()))}" for w in sorted(names))
    parts = [options, Path(__file__).read_text(), source, *reached]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
    word = f"rheobase_loop_{digest}"
    if word in sys.modules:
        known: Callable[..., None] = sys.modules[word].compiled
        return known
    if numba.config.DISABLE_JIT:
        plainly = types.ModuleType(word)
        vars(plainly).update(names)
        exec(compile(source, f"<loop {digest}>", "exec"), vars(plainly))  # noqa: S102 our own source

        def plain(*given: Any) -> None:
            with np.errstate(all="ignore"):  # compiled code does not warn of NaN and Inf either
                plainly.loop(*given)

        plainly.compiled = plain  # type: ignore[attr-defined]
        sys.modules[word] = plainly
        return plain
    path = cache_folder() / f"{word}.py"
    if not path.exists():
        _forget_old(path.parent)
        fresh = path.with_suffix(f".{os.getpid()}.tmp")
        fresh.write_text(source)
        fresh.replace(path)
    found = importlib.util.spec_from_file_location(word, path)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    vars(module).update(names)
    sys.modules[word] = module
    found.loader.exec_module(module)
    f, i, x = numba.float64[::1], numba.int64[::1], numba.float64[:, ::1]
    n_outs = source.split("n_out", 1)[1].split(")")[0].count(", o")
    signature = (f, i, f, i, f, x, i, *([f, x] * n_outs))
    made = numba.njit(nogil=True, error_model="numpy", cache=True)(module.loop)
    try:
        made.compile(signature)
        made.disable_compile()  # other arguments are an error, and nothing compiles on live data
    except BaseException:
        del sys.modules[word]
        raise
    module.compiled = made  # type: ignore[attr-defined]
    return made  # type: ignore[no-any-return]


def cache_folder() -> Path:
    """Where compiled loops are kept: $RHEOBASE_CACHE, else the user's cache folder, else a temporary one."""
    home = os.environ.get("RHEOBASE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "rheobase"
    folder = Path(home).expanduser() / "loops"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="rheobase-loops-"))


def _forget_old(folder: Path, days: float = 30) -> None:
    for old in folder.glob("**/rheobase_loop_*"):
        try:
            if time.time() - old.stat().st_mtime > days * 86400:
                old.unlink()
        except OSError:  # another process was first
            pass


def reach(value: Any, seen: set[int]) -> Iterator[str]:
    """Everything that a compiled function depends on, as text: its bytecode and all that it reaches.

    What is not known here goes in by its repr: one that tells too much costs a compilation, never a stale loop.
    """
    f = getattr(getattr(value, "_dispatcher", value), "py_func", value)  # of a function, or of a ufunc
    if f is not value:
        yield repr(getattr(value, "targetoptions", ""))  # fastmath gives other numbers
    if isinstance(f, types.CodeType):
        yield f.co_code.hex()
        yield repr(f.co_names)
        yield repr([type(c) for c in f.co_consts])
        for const in f.co_consts:
            yield from reach(const, seen)
    elif isinstance(f, types.FunctionType):
        if id(f) in seen:
            return
        seen.add(id(f))
        yield f.__qualname__
        yield from reach(f.__code__, seen)
        yield from reach(f.__defaults__, seen)
        cells = (c.cell_contents for c in f.__closure__ or ())
        space = f.__globals__ | dict(zip(f.__code__.co_freevars, cells, strict=True))
        codes = list(_codes(f.__code__))
        words = dict.fromkeys([*f.__code__.co_freevars, *(w for c in codes for w in _globals(c))])
        for found in _named(list(words), list(dict.fromkeys(w for c in codes for w in c.co_names)), space):
            yield from reach(found, seen)
    elif isinstance(f, types.ModuleType):
        yield f.__name__
    elif isinstance(f, type):
        yield f"{f.__qualname__}{getattr(f, '_fields', '')}{list(f) if issubclass(f, enum.Enum) else ''}"
    elif isinstance(f, np.ndarray | np.generic):
        yield f"{f.dtype}{f.shape}{f.tobytes().hex()}"
    elif isinstance(f, tuple | list):
        for v in f:
            yield from reach(v, seen)
    else:
        yield repr(f)


def _named(words: Sequence[str], inner: Sequence[str], space: Mapping[str, Any]) -> Iterator[Any]:
    """What these words stand for, and what `inner` may in their modules: in "helpers.gain", gain is one of helpers."""
    for word in words:
        if word in space:
            found = space[word]
            yield found
            if isinstance(found, types.ModuleType) and found.__name__.split(".")[0] not in ("math", "numpy", "numba"):
                rest = [w for w in inner if w != word]
                yield from _named(rest, rest, vars(found))


@functools.cache  # looking through a loop's code takes ms, and it is started again and again
def _globals(code: types.CodeType) -> tuple[str, ...]:
    """No attributes: `params.limit` has nothing to do with a function `limit` beside it, nor with what that reaches."""
    return tuple(i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _codes(const)
