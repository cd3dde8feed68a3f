"""`rheo nodes`: what types there are, and all about one."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from typing import Any

import rich.console
import rich.table
from rich.markup import escape

from rheobase.stream.block import StreamError
from rheobase.stream.node import Kernel, Sink, Source, load
from rheobase.stream.node import types as node_types

SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def show_all(console: rich.console.Console) -> None:
    """A table of every type that comes with rheobase."""
    table = rich.table.Table("type", "kind", "what it does")
    for word in node_types():
        try:
            cls = load(word)
        except StreamError as e:  # an optional package is missing
            table.add_row(word, "?", escape(str(e)))
            continue
        table.add_row(word, _kind(cls), escape(_first(cls.__doc__ or "")))
    console.print(table)


def show_one(word: str, console: rich.console.Console) -> None:
    """The docstring and the parameters of a type. Raises StreamError with the nearest one."""
    cls = load(word)
    console.print(f"{word} ({_kind(cls)})\n", highlight=False, markup=False)
    console.print(inspect.cleandoc(cls.__doc__ or "") + "\n", highlight=False, markup=False, soft_wrap=True)
    table = rich.table.Table("parameter", "type", "default", "meaning")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key, meaning in cls.meanings().items():
        table.add_row(key, escape(_words(cls.parameters()[key])), escape(_default(fields[key])), escape(meaning))
    console.print(table)


def _kind(cls: type) -> str:
    return next((k.__name__.lower() for k in (Kernel, Source, Sink) if issubclass(cls, k)), "node")


def _first(text: str) -> str:
    """The lines of a docstring up to the first that ends a sentence."""
    lines = inspect.cleandoc(text).split("\n\n")[0].splitlines()
    ends = next((k for k, line in enumerate(lines) if line.rstrip().endswith((".", ";", ":"))), len(lines) - 1)
    return " ".join(line.strip() for line in lines[: ends + 1])


def _words(hint: Any) -> str:
    """A type as one would write it, its bounds behind it."""
    if hasattr(hint, "__metadata__"):
        given = [(SIGNS[k], getattr(m, k)) for m in hint.__metadata__ for k in SIGNS]
        bounds = [f"{sign} {bound:g}" for sign, bound in given if bound is not None]
        return " ".join([_words(hint.__origin__), *bounds])
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Literal:
        return " | ".join(map(str, parts))
    if kind in (typing.Union, types.UnionType):
        return " | ".join(map(_words, parts))
    if kind:
        return f"{kind.__name__}[{', '.join(map(_words, parts))}]"
    return "..." if hint is ... else "null" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return "(needed)"
