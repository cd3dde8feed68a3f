"""The rules of CONTRIBUTING.md that a linter does not know."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rheobase.stream.graph import parse

ROOT = Path(__file__).parent.parent
LONG = 300
LONGER: dict[str, str] = {
    # file: why it is longer than LONG lines and still one thing
    "nodes/_decoder.py": "what a decoder is: how it learns, is written down, and is held against what it runs on",
    "nodes/_training.py": "one loop of learning: its windows, what is judged, and how it goes on where it stopped",
    "stream/check.py": "the contract: a list of checks, each with what it needs",
    "stream/cli.py": "every command and its options: a list, which one looks things up in",
    "stream/fuse.py": "writing, laying out and compiling one loop: its parts make no sense apart",
    "stream/engine.py": "wiring, running and aligning the nodes of one process: a listener knows all three",
    "stream/graph.py": "all there is to say about a config, right or wrong",
    "stream/link.py": "the format of a frame and the two ends that keep to it",
    "stream/node.py": "what a node is, its three kinds, and how its parameters are read: what one reads to write one",
    "stream/parent.py": "one conversation with every child: each thing that can happen to one concerns the others",
}
SEES = {"stream": {"stream"}, "nodes": {"stream", "nodes"}, "devices": {"stream", "devices"}}
COMPILED = {"kernel", "routine", "intrinsic"}
OPTIONAL = {"pylsl", "PySide6", "pyqtgraph", "torch", "matplotlib"}


def tracked(pattern: str = "") -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z", pattern or "."], cwd=ROOT, capture_output=True, check=False)
    names = done.stdout.decode().split("\0") if done.returncode == 0 else []
    found = [ROOT / n for n in names if n and (ROOT / n).is_file()]
    if not found:
        pytest.skip("not in a git checkout")
    return found


def sources(*folders: str) -> list[Path]:
    found = [p for folder in folders for p in sorted((ROOT / folder).glob("*.py"))]
    assert found
    return found


def imports(tree: ast.AST) -> Iterator[str]:
    for line in ast.walk(tree):
        if isinstance(line, ast.Import):
            yield from (a.name for a in line.names)
        elif isinstance(line, ast.ImportFrom):
            assert line.level == 0, "imports are absolute"
            yield line.module or ""
            yield from (f"{line.module}.{a.name}" for a in line.names)


@pytest.mark.parametrize("path", sources(*SEES), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_imports_go_one_way(path: Path) -> None:
    seen = {m.split(".")[1] for m in imports(ast.parse(path.read_text())) if m.startswith("rheobase.")}
    door = {"tools"} if path.name == "cli.py" else set()  # rheo opens each tool when it is asked for
    assert seen <= SEES[path.parent.name] | door


@pytest.mark.parametrize(
    "path", sources("stream", "nodes", "devices", "tools"), ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_only_kernels_go_without_types(path: Path) -> None:
    """mypy cannot except functions by decorator, so this stands for its disallow_untyped_defs."""
    bare = []
    for f in ast.walk(ast.parse(path.read_text())):
        if not isinstance(f, ast.FunctionDef) or COMPILED & {ast.unparse(d) for d in f.decorator_list}:
            continue
        a = f.args
        given = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, [a.vararg, a.kwarg])]
        if f.returns is None or any(x.annotation is None for x in given if x.arg not in ("self", "cls")):
            bare.append(f"{path.name}:{f.lineno} {f.name}")
    assert not bare


def test_the_engine_alone_is_light() -> None:
    """`import rheobase.stream.*` takes in no optional part."""
    modules = [f"rheobase.stream.{p.stem}" for p in sources("stream") if p.stem != "__init__"]
    code = f"import sys, {', '.join(modules)}; print(*(set({sorted(OPTIONAL)}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == ""


def test_torch_is_imported_only_inside_functions() -> None:
    """A trained model runs without it."""
    for path in sources("stream", "nodes", "devices", "tools"):
        top = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
        assert "torch" not in {m.split(".")[0] for line in top for m in imports(line)}, path


def test_long_files_have_a_reason() -> None:
    lengths = {
        f"{p.parent.name}/{p.name}": len(p.read_text().splitlines()) for p in sources("stream", "nodes", "devices")
    }
    long = {name for name, n in lengths.items() if n > LONG}
    assert long - LONGER.keys() == set(), "split it, or give its reason in LONGER"
    assert LONGER.keys() - long == set(), "has become short: strike it from LONGER"


def test_no_word_of_the_machine_it_was_made_on() -> None:
    """Paths and hosts of one machine help nobody on another."""
    marks = ("/work" + "/", "/tmp/" + "venv", "/opt/" + "pypi", "/opt/" + "wheels", "extra-index-" + "url")
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        assert not [m for m in marks if m in text], path


def test_every_module_of_a_node_says_what_it_is() -> None:
    for path in sources("stream", "nodes", "devices", "tools"):
        if path.stem != "__init__":
            assert ast.get_docstring(ast.parse(path.read_text())), f"{path} needs a docstring"


def test_the_constraints_meet_the_requirements() -> None:
    """What `make` installs lies within the ranges that pyproject.toml promises to work."""
    import tomllib

    from packaging.requirements import Requirement

    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    pinned = {k.lower().replace("_", "-"): v for k, v in pinned.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needs = [Requirement(r) for r in [*project["dependencies"], *(r for e in extras for r in extras[e])]]
    for need in needs:
        if need.name != "rheobase":
            assert need.name.lower() in pinned, f"{need.name} is not pinned"
            assert need.specifier.contains(pinned[need.name.lower()]), need


def test_the_example_of_the_readme_is_a_graph() -> None:
    text = (ROOT / "README.md").read_text()
    [example] = [part.split("```")[0] for part in text.split("```yaml\n")[1:]]
    graph = parse(example, "README.md")
    assert list(graph) == ["array", "rates", "cursor", "task", "out", "view", "rec", "recal"]


def test_every_path_in_the_documents_is_there() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
            assert "://" in target or (ROOT / target).exists(), f"{name}: {target}"
