"""What a config may say of a process besides its nodes.

processes:
  main:    {restart: 3, deadline: 0.05, late: safe}
  acquire: {cpu: [1], priority: 20, hang: 5}
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

import msgspec

from rheobase.stream.block import StreamError
from rheobase.stream.node import nearest

SPARE = 3
"""`restart` of what the others can do without."""
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Process(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How one process is run, watched, and ended.

    restart   how often it may be started again within `within` s after it died, hung or raised; 0: the run ends. Where
              the config does not say: 0, and 3 for what the others can do without (`Graph.spare`), as a window
    backoff   s before the first new start; each further one within `within` waits twice as long
    within    s
    hang      s at one block, or without a sign of life, after which it is ended by force; 0: it is only named
    deadline  s: what is older at a sink of this process is counted as late; 0: nothing is
    late      what to do then: warn, give outlets' safe value until samples are in time again, or stop the run
    cpu       cores that it may run on; none: all
    priority  SCHED_FIFO priority of its loop, 1 to 99, where allowed; 0: the usual scheduler. Not for a process
              whose source spins (a paced one): it would take the core from everything else
    """

    restart: Annotated[int, msgspec.Meta(ge=0)] = 0
    backoff: Seconds = 0.1
    within: Seconds = 60.0
    hang: Seconds = 0.0
    deadline: Seconds = 0.0
    late: Literal["warn", "safe", "stop"] = "warn"
    cpu: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = ()
    priority: Annotated[int, msgspec.Meta(ge=0, le=99)] = 0


def processes(options: dict[str, Any], labels: Collection[str], spare: Collection[str] = ()) -> dict[str, Process]:
    """The table `processes` of a config, an entry for every label. Raises StreamError with the nearest right word."""
    given = options.get("processes") or {}
    if not isinstance(given, dict):
        raise StreamError("processes: write {process: {restart: ..., hang: ...}}")
    found = {label: Process(restart=SPARE if label in spare else 0) for label in labels}
    for label, entry in given.items():
        if label not in found:
            raise StreamError(f"processes: no node lives in process {label!r}{nearest(str(label), labels)}")
        for key in entry if isinstance(entry, dict) else ():
            if key not in Process.__struct_fields__:
                raise StreamError(
                    f"processes: {label}: unknown key {key!r}{nearest(str(key), Process.__struct_fields__)}"
                )
        try:
            whole = {"restart": found[label].restart} | entry if isinstance(entry, dict) else entry
            found[label] = msgspec.convert(whole, Process)
        except msgspec.ValidationError as e:
            why = f"{str(e)[:1].lower()}{str(e)[1:]}"
            raise StreamError(f"processes: {label}: {why}") from None
    return found
