"""The house rules that a program can check, so that reviews need not."""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ["conf", "harness", "methods", "tasks", "scripts", "tests"]
ROOT_LAYOUT = {"pyproject.toml", "conf", "harness", "methods", "tasks", "results", "scripts", "tests", "README.md"}
ROOT_LAYOUT |= {"LICENSE", "docs", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff"}
ROOMS = {"engine", "models", "config", "runs", "commands", "results"}
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PRODUCT = [path for path in SOURCES if not path.is_relative_to(ROOT / "tests")]
METHODS = sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))
HEAVY = {"transformers", "datasets", "wandb", "mlflow", "pandas", "matplotlib", "scipy"}
# Places and services of one machine; the classes in brackets keep the pattern from finding itself.
PRIVATE = re.compile(r"/(?:work|tmp|root|home|farm)/[\w.]|[.][.]/shared|pypi[.]org|python[h]osted|npm[j]s")
TEXT = {".py", ".yaml", ".toml", ".md", ".json", ".lock", ""}


def name_of(path: Path) -> str:
    """Name a file as a reader knows it, from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield name and length in lines of every function in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{name_of(path)}:{node.name}", node.end_lineno - node.lineno + 1


def imported_at_module_level(path: Path) -> set[str]:
    """Collect the top-level packages that importing a file imports."""
    statements = ast.parse(path.read_text()).body
    names = [alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in statements if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


def texts() -> Iterator[tuple[str, str]]:
    """Yield name and content of every text file that a reader of the repository sees."""
    inside = [path for folder in [*FOLDERS, ".ci"] for path in (ROOT / folder).rglob("*")]
    for path in [*inside, *(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "pyproject.toml"]:
        if path.is_file() and path.suffix in TEXT:
            yield name_of(path), path.read_text()


def test_imports_keep_to_the_contracts():
    """Guards who may know whom: an engine that imports a task, a task that imports a model, and so on."""
    lint_imports = Path(sys.executable).with_name("lint-imports")
    process = subprocess.run([lint_imports, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


def test_the_command_starts_light():
    """Guards `decbench --help` answering in about a second: importing the dispatcher imports no framework."""
    heavy = sorted(HEAVY | {"torch", "hydra", "omegaconf", "numpy", "pyarrow", "rich"})
    program = f"import sys, harness.cli; sys.exit(' '.join(n for n in {heavy} if n in sys.modules) or None)"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_heavy_packages_are_imported_where_they_are_used(path: Path):
    """Guards start-up time: each of these costs seconds, and most runs need none of them."""
    assert not imported_at_module_level(path) & HEAVY


def test_what_hydra_keeps_to_itself_is_used_in_one_place():
    """Guards the next version of Hydra, which may change what it does not promise: one file has to follow."""
    inside = {name_of(path) for path in SOURCES if re.search(r"^\s*(from|import) hydra[.]_", path.read_text(), re.M)}
    assert inside == {"harness/config/loader.py"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_is_short(path: Path):
    """Guards against files that nobody reads whole, and against drawers without a subject."""
    assert len(path.read_text().splitlines()) <= 400
    assert path.name != "utils.py"


def test_functions_fit_a_screen():
    """Guards against functions that need scrolling."""
    lengths = dict(function for path in PRODUCT for function in functions(path))
    assert {name: length for name, length in lengths.items() if length > 60} == {}
    assert statistics.median(lengths.values()) <= 15


def test_the_root_holds_what_the_design_names():
    """Guards the root against growing; dot-files and what packaging leaves behind are nobody's reading."""
    visible = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert visible - {"decbench.egg-info"} == ROOT_LAYOUT


def test_the_harness_has_the_rooms_of_the_contracts():
    """Guards the import contracts, which name the rooms: a new one would be under no contract."""
    rooms = {path.name for path in (ROOT / "harness").iterdir() if path.is_dir()} - {"__pycache__"}
    assert rooms == ROOMS


def test_tests_hold_no_packages():
    """Guards test imports: tests/tasks with an __init__.py would be imported under the name of the product's tasks."""
    assert [name_of(path) for path in SOURCES if path.name == "__init__.py" and path not in PRODUCT] == []


def test_no_text_names_a_private_place():
    """Guards against paths and hosts that exist on one machine only."""
    found = {name: match[0] for name, text in texts() if (match := PRIVATE.search(text))}
    assert found == {}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_tests_of_its_own(method: str):
    """Guards against a method that only the common suite runs: something must pin what is special about it."""
    files = (ROOT / "tests" / "methods").rglob("test_*.py")
    assert any(path.stem == f"test_{method}" or f'"{method}"' in path.read_text() for path in files)
