"""What an LSL outlet says of itself."""

from __future__ import annotations

from typing import Any

import pylsl

from rheobase.stream.block import Spec, StreamError, numbered

DTYPES = {"double64": "float64", "string": "str"}
"""The dtype for a format of LSL, where it differs."""


def spec_of(info: Any) -> Spec:
    """The Spec of its stream."""
    n = info.channel_count()
    labels = info.get_channel_labels() or []
    names = numbered("ch", n)
    units = {*(info.get_channel_units() or [""])}
    form = pylsl.lib.fmt2string[info.channel_format()]
    delay = info.desc().child_value("delay")
    return Spec(
        rate=info.nominal_srate(),
        channels=tuple(x or y for x, y in zip(labels, names, strict=True)) if len(labels) == n else names,
        unit=units.pop() or "" if len(units) == 1 else "",
        delay=float(delay) if delay else 0.0,
        dtype=DTYPES.get(form, form),
    )


def unchanged(new: Spec, old: Spec, what: str) -> None:
    """Raises StreamError where a stream, called `what`, came back as one that cannot go on where the old one ended."""
    for word, is_now, was in (
        ("channels", new.n, old.n),
        ("Hz", f"{new.rate:g}", f"{old.rate:g}"),
        ("samples", new.dtype, old.dtype),
        ("as channels", ", ".join(new.channels), ", ".join(old.channels)),
    ):
        if is_now != was:
            raise StreamError(f"{what} came back with {is_now} {word}, it had {was}")


def device(info: Any) -> tuple[str, str]:
    """The source_id, which stays the same where a device is started again, and the host."""
    return info.source_id(), info.hostname()
