"""`rheo nodes`: what types there are, and all about one."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import rich.console
import rich.table
from rich.markup import escape

from rheobase.stream.block import StreamError
from rheobase.stream.node import Kernel, Sink, Source, load, types

SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def show_all(console: rich.console.Console) -> None:
    """A table of every type that comes with rheobase."""
    table = rich.table.Table("type", "kind", "what it does")
    for word in types():
        try:
            cls = load(word)
        except StreamError as e:  # an optional package is missing
            table.add_row(word, "?", escape(str(e)))
            continue
        table.add_row(word, _kind(cls), escape((cls.__doc__ or "").strip().split("\n")[0]))
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


def _words(hint: Any) -> str:
    """A type as one would write it, its bounds behind it."""
    if hasattr(hint, "__metadata__"):
        given = [(SIGNS[k], getattr(m, k)) for m in hint.__metadata__ for k in SIGNS]
        bounds = [f"{sign} {bound:g}" for sign, bound in given if bound is not None]
        return " ".join([_words(hint.__origin__), *bounds])
    if isinstance(hint, type) and not hasattr(hint, "__args__"):
        return hint.__name__
    return str(hint).replace("typing.", "")


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return "(needed)"
