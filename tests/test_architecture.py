"""The structure, read from imports and syntax trees: what may know what, and how large it is."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

import mgnp_jax as mg

ROOT = Path(mg.__file__).parent
EXPERIMENTS = ROOT.parent / "experiments"
ORDER = (
    "version",
    "types",
    "cachedir",
    "choices",
    "files",
    "checkpoint",
    "tasks",
    "models",
    "masks",
    "passes",
    "metrics",
    "methods",
    "evidence",
    "report",
    "runs",
    "__init__",
)
FILES = sorted(ROOT.rglob("*.py"))
SCRIPTS = sorted(EXPERIMENTS.rglob("*.py"))
GOING = frozenset(
    """stand_in standin aim lift extent shares piece twins sealed opened ends readout judge dial
    chosen_by""".split()
)
"""Home-made words for things that the field has names for."""


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def stage(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} has a relative import"
            found |= {str(node.module)}
    return found


def functions(file: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.FunctionDef):
            yield node


def names(file: Path) -> set[str]:
    """Every name that a file gives to something: variables, arguments, attributes, definitions."""
    found = {file.stem}
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.arg | ast.keyword):
            found.add(str(node.arg))
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
    return found


def documented(node: ast.AST) -> set[int]:
    """Ids of the constants that are docstrings."""
    return {
        id(child.value)
        for child in ast.walk(node)
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
    }


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_dependencies_point_one_way(file: Path) -> None:
    here = ORDER.index(stage(file))
    for module in imports(file):
        parts = module.split(".")
        assert parts[0] not in ("experiments", "tests"), f"{file} imports {module}"
        if parts[0] == "mgnp_jax":
            assert len(parts) > 1, f"{file} imports the package's front door"
            assert ORDER.index(parts[1]) <= here, f"{file} imports {module}, a later stage"


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda f: str(f.relative_to(EXPERIMENTS)))
def test_commands_know_the_package_and_not_each_other(file: Path) -> None:
    own = file.relative_to(EXPERIMENTS).parts[0]
    for module in imports(file):
        parts = module.split(".")
        assert parts[0] != "tests"
        if parts[0] == "experiments":
            # Before anything else, the package asks for huge pages.
            assert parts[1] in ("command", "huge_pages", own), f"{file} imports {module}"


def test_the_engine_learns_nothing_and_measures_nothing() -> None:
    for file in (ROOT / "passes").rglob("*.py"):
        found = {module.split(".")[0] for module in imports(file)}
        assert "optax" not in found, file
        assert not any(".metrics" in m or ".tasks" in m for m in imports(file)), file


def test_only_checkpoint_imports_orbax() -> None:
    users = [f for f in FILES if any(m.split(".")[0] == "orbax" for m in imports(f))]
    assert users == [ROOT / "checkpoint.py"]


@pytest.mark.parametrize("folder", ["models/families", "methods"])
def test_what_is_in_a_table_is_known_to_the_table_alone(folder: str) -> None:
    # A family's or a method's own files, and the table beside them; and the public names.
    own = f"mgnp_jax.{folder.replace('/', '.')}"
    open_ = {own, f"{own}.protocol", f"{own}.discover"}
    for file in FILES:
        if ROOT / folder in file.parents or file == ROOT / "__init__.py":
            continue
        inside = {m for m in imports(file) if m.startswith(own)}
        assert inside <= open_, f"{file} imports {inside - open_}"


def test_methods_do_not_know_each_other() -> None:
    folder = ROOT / "methods"
    shared = ("protocol", "__init__", "discover", "sizing", "training")
    for file in folder.rglob("*.py"):
        own = file.relative_to(folder).parts[0].removesuffix(".py")
        if own in shared:
            continue
        for module in imports(file):
            if module.startswith("mgnp_jax.methods."):
                assert module.split(".")[2] in (own, *shared), f"{file} imports {module}"


def test_nothing_asks_which_family_it_has() -> None:
    # Not by its name, nor by the object: no comparison has `.family` or `.family.name` in it.
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Compare):
                parts = [p for side in (node.left, *node.comparators) for p in ast.walk(side)]
                asked = {p.attr for p in parts if isinstance(p, ast.Attribute)}
                assert "family" not in asked, f"{file}:{node.lineno} compares families"


def test_the_names_of_granularities_are_written_once() -> None:
    for file in FILES:
        if file == ROOT / "masks" / "granularities.py":
            continue
        module = tree(file)
        texts = documented(module)
        for node in ast.walk(module):
            if isinstance(node, ast.Constant) and id(node) not in texts:
                # `mlp_hidden` is also the name of a site and of a step of the block.
                assert node.value not in set(mg.GRANULARITIES) - {"mlp_hidden"}, (
                    f"{file}:{node.lineno} writes {node.value!r}"
                )


@pytest.mark.parametrize("file", [*FILES, *SCRIPTS], ids=lambda f: f.stem)
def test_words_are_those_of_the_field(file: Path) -> None:
    assert not {name.lower().strip("_") for name in names(file)} & GOING
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.arg) and node.annotation is not None:
            if ast.unparse(node.annotation).endswith("ModelConfig"):
                assert node.arg != "config", f"{file}:{node.lineno} calls a model's config so"


def test_public_names_exist_and_are_documented() -> None:
    assert sorted(set(mg.__all__)) == sorted(mg.__all__)
    for name in mg.__all__:
        thing = getattr(mg, name)
        if callable(thing):
            assert thing.__doc__, name


@pytest.mark.parametrize("file", [*FILES, *SCRIPTS], ids=lambda f: f.stem)
def test_files_say_what_they_are(file: Path) -> None:
    assert ast.get_docstring(tree(file)), f"{file} does not say what it is"


def test_files_hold_one_idea_and_functions_one_step() -> None:
    long = [f for f in (*FILES, *SCRIPTS) if len(f.read_text().splitlines()) > 250]
    assert len(long) <= 1, long
    commands = [f for f in SCRIPTS if f.parent == EXPERIMENTS]
    assert all(len(f.read_text().splitlines()) <= 120 for f in commands)
    lengths = {
        f"{file}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for file in (*FILES, *SCRIPTS)
        for node in functions(file)
    }
    assert max(lengths.values()) <= 60, max(lengths, key=lambda name: lengths[name])
    assert statistics.median(lengths.values()) < 15
