"""Files found by name, and model files.

A model file is an .npz of arrays with a JSON header beside them. It is read without pickle, and its sizes are
checked before memory is taken for them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
import json
import math
import os
import platform
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pooch

from rheobase.stream.block import Array, StreamError
from rheobase.stream.node import nearest

LARGEST = 1 << 30
"""bytes: the most that the arrays of a model file may take."""


def save_model(path: str | Path, arrays: Mapping[str, Any], header: Mapping[str, Any]) -> Path:
    """Write arrays and header, with the date and the versions of the packages, all at once or not at all."""
    path = Path(path)
    made: dict[str, Any] = {k: np.asarray(a) for k, a in arrays.items()}
    full = dict(header) | {
        "arrays": {k: digest(a) for k, a in made.items()},
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(),
    }
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as f:
            np.savez(f, header=np.frombuffer(json.dumps(full).encode(), np.uint8), **made)
            f.flush()
            os.fsync(f.fileno())
        fresh.replace(path)
    except OSError as e:
        fresh.unlink(missing_ok=True)
        raise StreamError(f"cannot write {path}: {e.strerror or e}") from None
    return path


def load_model(path: str | Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and header of a model file.

    Raises StreamError, naming the file, where it is missing, truncated, damaged, or holds numbers that are not
    finite.
    """
    try:
        with zipfile.ZipFile(path) as z:
            for member in z.infolist():
                _check_member(z, member)
            if sum(m.file_size for m in z.infolist()) > LARGEST:
                raise ValueError(f"more than {LARGEST >> 20} MiB")
        with np.load(path, allow_pickle=False) as f:
            arrays = {k: f[k] for k in f.files}
        header = json.loads(arrays.pop("header").tobytes())
        if not isinstance(header, dict) or not {"node", "in", "out", "arrays"} <= header.keys():
            raise ValueError("its header is incomplete")
        if {k: digest(a) for k, a in arrays.items()} != header["arrays"]:
            raise ValueError("its arrays are not those that were written")
        for key, a in arrays.items():
            if not np.isfinite(a).all():
                raise ValueError(f"{key} holds values that are not finite")
    except FileNotFoundError:
        raise StreamError(f"no file {path}") from None
    except KeyError:
        raise StreamError(f"{path} is not a model file: it has no header") from None
    except OSError as e:
        raise StreamError(f"cannot read {path}: {e.strerror or e}") from None
    except Exception as e:  # noqa: BLE001 a damaged file can trip a reader anywhere
        why = (str(e).splitlines() or [type(e).__name__])[0]
        raise StreamError(f"{path} is damaged or not a model file: {why}") from None
    return arrays, header


def _check_member(z: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """The array that a member announces must be as large as the member, and of plain numbers."""
    with z.open(member) as f:
        version = np.lib.format.read_magic(f)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(f)
        if dtype.kind not in "fiu":
            raise ValueError(f"{member.filename} holds {dtype}, not numbers")
        if math.prod(shape) * dtype.itemsize != member.file_size - f.tell():
            raise ValueError(f"{member.filename} has another size than it says")


def digest(*arrays: Array) -> str:
    """SHA-256 of the arrays' shapes and bytes."""
    sha = hashlib.sha256()
    for a in arrays:
        sha.update(repr((a.shape, a.dtype.str)).encode())
        sha.update(np.ascontiguousarray(a).tobytes())
    return sha.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what a number depends on."""
    found = {"python": platform.python_version()}
    for package in ("rheobase", "numpy", "scipy", "numba", "torch"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def find(name: str, folder: Path | None = None) -> Path:
    """Where a file is.

    "data:flint2012_run1/x.csv" is recorded data: looked up in $RHEOBASE_DATA, else in the user's cache, else
    fetched from its public address and checked against its SHA-256 (`tools/data.json`). Any other name is a path,
    as it stands or within `folder`.

    Raises StreamError, with the nearest right word, where there is no such file.
    """
    if name.startswith("data:"):
        return _recorded(name.removeprefix("data:"))
    path = Path(name).expanduser()
    for p in (path, folder / path) if folder else (path,):
        if p.exists():
            return p
    beside = (folder or Path()) / path.parent if not path.is_absolute() else path.parent
    there = [p.name for p in beside.iterdir()] if beside.is_dir() else []
    close = nearest(path.name, there)
    raise StreamError(f"no file {name!r}{close if 'did you mean' in close else ''}")


def table() -> dict[str, dict[str, str]]:
    """Recorded data that can be fetched: name -> url, sha256."""
    text = importlib.resources.files("rheobase.tools").joinpath("data.json").read_text()
    found: dict[str, dict[str, str]] = json.loads(text)
    return found


def known_data() -> dict[str, str]:
    """Every recorded data file that is there or can be fetched: name -> its path, or its public address."""
    found = {name: entry["url"] for name, entry in table().items()}
    kept = Path(pooch.os_cache("rheobase"))
    found |= {name: str(kept / name) for name in found if (kept / name).exists()}
    root = os.environ.get("RHEOBASE_DATA")
    if root and Path(root).is_dir():
        here = (p for p in Path(root).rglob("*") if p.is_file() and not p.name.startswith("."))
        found |= {p.relative_to(root).as_posix(): str(p) for p in here}
    return dict(sorted(found.items()))


def _recorded(name: str) -> Path:
    root = os.environ.get("RHEOBASE_DATA")
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise StreamError(f"data:{name}: a name of recorded data has no '..' and no leading '/'")
    if root and (Path(root) / name).exists():
        return Path(root) / name
    known = table()
    if name not in known:
        here = f" in {root}" if root else " ($RHEOBASE_DATA is not set)"
        raise StreamError(f"no recorded data 'data:{name}'{here}, nor a public address for it{nearest(name, known)}")
    entry = known[name]
    kept = Path(pooch.os_cache("rheobase"))
    try:
        got = pooch.retrieve(
            entry["url"], f"sha256:{entry['sha256']}", fname=Path(name).name, path=kept / Path(name).parent
        )
    except ValueError:
        raise StreamError(f"data:{name}: what came from {entry['url']} has another SHA-256 than it should") from None
    except Exception as e:  # noqa: BLE001 pooch passes on whatever its downloader raised
        why = f"cannot fetch {entry['url']} ({type(e).__name__})"
        raise StreamError(f"data:{name}: {why}; where it is already, set $RHEOBASE_DATA to its folder") from None
    return Path(got)
