"""The package's structure: dependencies point one way, and secrets stay in their files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mgnp_jax as mg

ROOT = Path(mg.__file__).parent
ORDER = (
    "version",
    "types",
    "checkpoint",
    "tasks",
    "models",
    "masks",
    "metrics",
    "train",
    "report",
    "__init__",
)
FILES = sorted(ROOT.rglob("*.py"))


def stage(file: Path) -> str:
    first = file.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} has a relative import"
            found |= {str(node.module)}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_dependencies_point_one_way(file: Path) -> None:
    here = ORDER.index(stage(file))
    for module in imports(file):
        if module.split(".")[0] == "mgnp_jax":
            parts = module.split(".")
            assert len(parts) > 1, f"{file} imports the package's front door"
            assert ORDER.index(parts[1]) <= here, f"{file} imports {module}, a later stage"
        assert module.split(".")[0] != "experiments"


def test_only_checkpoint_imports_orbax() -> None:
    users = [f for f in FILES if any(m.split(".")[0] == "orbax" for m in imports(f))]
    assert users == [ROOT / "checkpoint.py"]


def test_nothing_outside_models_asks_for_the_family() -> None:
    for file in FILES:
        if stage(file) == "models":
            continue
        text = file.read_text()
        for forbidden in ("gpt2.py", "models.gpt2", "models.llama", "family ==", "FAMILIES"):
            assert forbidden not in text, f"{file} has {forbidden}"


def test_public_names_exist_and_are_documented() -> None:
    assert sorted(set(mg.__all__)) == sorted(mg.__all__)
    for name in mg.__all__:
        thing = getattr(mg, name)
        if callable(thing):
            assert thing.__doc__, name


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_files_hold_one_idea(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text())), f"{file} does not say what it is"
    assert len(file.read_text().splitlines()) <= 300
