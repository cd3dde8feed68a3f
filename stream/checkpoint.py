"""What a process must not forget when it is started again: the state of its kernels, and which models were swapped in.

One .npz of plain numbers, replaced as a whole. Kernels whose state starts afresh in a new segment do so here, too,
since samples may be missing; the others (a running z-score, a threshold) go on with what they had learnt. What a
`Node` that is not a kernel keeps is its own, and starts afresh.
"""

from __future__ import annotations

import json
import logging
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rheobase.stream.block import StreamError

if TYPE_CHECKING:
    from rheobase.stream.engine import Engine

log = logging.getLogger("rheobase")


def take(engine: Engine) -> dict[str, Any]:
    """Copies, made between two blocks by the thread that runs them."""
    kept: dict[str, Any] = {}
    models: dict[str, str] = {}
    for root, swaps in engine.loops.items():
        kept[f"{root}.f"], kept[f"{root}.i"] = swaps.loop.checkpoint()
        models |= swaps.models
    kept["models"] = np.frombuffer(json.dumps(models).encode(), np.uint8)
    return kept


def save(engine: Engine, path: Path) -> None:
    """Write the last copy, if it has not been. From another thread than the engine's."""
    kept, engine.kept = engine.kept, None
    if kept is not None:
        fresh = path.with_suffix(".new")
        try:
            with fresh.open("wb") as f:
                np.savez(f, **kept)
            os.replace(fresh, path)
        except OSError as e:
            log.warning("no checkpoint: %s: %s", path, e.strerror)


def restore(engine: Engine, path: Path) -> None:
    """Put the last checkpoint back into an engine that has started; without one it starts afresh."""
    if not path.exists():
        log.warning("there is no checkpoint yet: states start afresh")
        return
    try:
        with np.load(path, allow_pickle=False) as kept:
            models = json.loads(kept["models"].tobytes())
            for root, swaps in engine.loops.items():
                swaps.loop.restore((kept[f"{root}.f"], kept[f"{root}.i"]))
                swaps.loop.segment = -1  # the next sample opens a segment
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise StreamError(f"checkpoint {path}: {e}") from None
    for node, model in models.items():
        engine.hear({"swap": {"node": node, "model": model}})
