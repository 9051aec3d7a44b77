"""What rests on Hydra's inside: one file, and what to do when Hydra moves it.

Hydra promises nothing of `hydra._internal`. When a test here fails after an update of hydra-core, either its bound in
pyproject.toml is put back, or `harness/config/loader.py` is taught the new place; nothing else has to change, and
tests/config/test_composition.py and test_names.py say whether configs are composed as before.
"""

import ast
from importlib import import_module
from pathlib import Path

import hydra
import pytest

from harness.config import loader

ROOT = Path(loader.__file__).parents[2]
LOADER = Path(loader.__file__)
WHAT_TO_DO = (
    "hydra-core {version} has moved {name}: keep hydra-core below that version in pyproject.toml, or mend "
    "harness/config/loader.py, the one file that uses it"
)


def imported() -> list[tuple[str, str]]:
    """Return the modules of Hydra's inside that the loader imports from, and the names."""
    nodes = [one for one in ast.walk(ast.parse(LOADER.read_text())) if isinstance(one, ast.ImportFrom)]
    inside = [one for one in nodes if (one.module or "").startswith("hydra._internal")]
    return [(str(one.module), name.name) for one in inside for name in one.names]


def test_one_file_touches_hydra_s_inside():
    """Guards an update of Hydra, which then breaks one file and no other."""
    files = [path for part in ("harness", "methods", "tasks") for path in (ROOT / part).rglob("*.py")]
    assert [path for path in files if "hydra._internal" in path.read_text()] == [LOADER]


@pytest.mark.parametrize(("module", "name"), imported())
def test_hydra_s_inside_is_where_the_loader_takes_it_from(module: str, name: str):
    """Guards whoever updates Hydra from a traceback without a word of what would do."""
    told = WHAT_TO_DO.format(version=hydra.__version__, name=f"{module}.{name}")
    try:
        found = hasattr(import_module(module), name)
    except ImportError:
        found = False
    assert found, told


@pytest.mark.parametrize(
    "name",
    ["_load_single_config", "_compose_config_from_defaults_list", "_parse_overrides_and_create_caching_repo"],
)
def test_what_the_loader_overrides_is_still_called_so(name: str):
    """Guards methods of Hydra's loader that ours replaces: under another name they would never be called."""
    told = WHAT_TO_DO.format(version=hydra.__version__, name=f"ConfigLoaderImpl.{name}")
    assert name in vars(loader.Loader) and hasattr(loader.ConfigLoaderImpl, name), told
