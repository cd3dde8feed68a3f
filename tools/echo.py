"""`rheo echo`: the samples of an LSL stream as text, and at the end how many came, how fast, and how old."""

from __future__ import annotations

import sys
from typing import TextIO

from rheobase.stream import clock
from rheobase.stream.block import StreamError


def echo(name: str, seconds: float | None = None, most: int | None = None, out: TextIO = sys.stdout) -> int:
    """Print each sample: its time, s of the LSL clock, then its values, with tabs between them; until Ctrl-C.

    name     of the stream, or key=value for another property, as in source_id=abc
    seconds  stop after so many
    most     stop after so many samples

    Returns the exit code: 1 where no sample came. Raises StreamError where there is no such stream.
    """
    try:
        from rheobase.devices.lsl import Lsl
    except (ImportError, OSError, RuntimeError) as e:
        raise StreamError(f"no LSL on this machine ({' '.join(str(e).split())}): `rheo doctor` says more") from None
    key, found, value = name.partition("=")
    source = Lsl(stream={key: value} if found else {"name": name})
    source.check()
    spec = source.start()
    ages, n, began = clock.Ages(), 0, clock.now()
    first = last = 0.0
    out.write("\t".join(["time", *spec.channels]) + "\n")
    try:
        for block in source.blocks():
            now = clock.now()
            if block is not None:
                block = block.cut(0, len(block) if most is None else most - n)
                for t, row in zip(block.times.tolist(), block.data.tolist(), strict=True):
                    out.write(f"{t:.6f}\t" + "\t".join(v if isinstance(v, str) else f"{v:.6g}" for v in row) + "\n")
                    ages.add(now - t)
                out.flush()
                first, last = first or float(block.times[0]), float(block.times[-1])
                n += len(block)
            if (seconds is not None and now - began >= seconds) or (most is not None and n >= most):
                break
    except KeyboardInterrupt:  # how one ends it
        pass
    finally:
        source.stop()
    said = f"its outlet says {spec.rate:g} Hz" if spec.rate else "irregular"
    rate = f"{(n - 1) / (last - first):.4g} Hz by their times ({said}), " if last > first else ""
    age = f"age p50 {1e3 * ages.quantile(0.5):.1f} ms, p99 {1e3 * ages.quantile(0.99):.1f} ms" if n else "none came"
    print(f"{n} samples: {rate}{age}", file=sys.stderr)
    return 0 if n else 1
