"""Code of a user's own, named in a setting as `package.module:name`."""

import ast
import difflib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from traceback import extract_tb

from harness.errors import ConfigError

_CODE = {"target": True, "load": False, "module": False, "grader": False}
"""Settings that name code, and whether they have to; what they say without a colon is a path or a name of ours."""

_NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_FORM = re.compile(f"{_NAME}:{_NAME}")
_SHOWN = 200
_MAKES_NAMES = ("id='globals'", "id='exec'", "id='setattr'", "name='__getattr__'", "attr='modules'", "name='*'")
"""What stands in the syntax tree of a module that may bind names which it does not spell."""


def is_reference(value: object) -> bool:
    """Tell whether a value has the form `package.module:name`."""
    return isinstance(value, str) and _FORM.fullmatch(value) is not None


def module_of(key: str, reference: object) -> str:
    """Return the module that a reference names, without importing it; it may lie in the folder of the command.

    Raise ConfigError naming the key for another form, and for a package that is not here.
    """
    if not is_reference(reference):
        raise ConfigError(f"{key}={'null' if reference is None else reference}: name code as package.module:name")
    module = str(reference).partition(":")[0]
    if not is_there(module):
        raise ConfigError(f"{key}={reference}: no module {module} here ({Path.cwd()}) or among the installed packages")
    name = str(reference).partition(":")[2].partition(".")[0]
    known = _names_in(module)
    if known is not None and name not in known:
        raise ConfigError(f"{key}={reference}: {module} has no {name}{_near(name, known)}")
    return module


def file_of(module: str) -> Path | None:
    """Return the source file of a module, or None for what is no module of Python source; imports nothing."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        stem = Path(folder).joinpath(*inner)
        for file in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
            if file.is_file():
                return file
    return None


def _names_in(module: str) -> frozenset[str] | None:
    """Return what a module's own file binds, without importing it; None where only importing tells."""
    file = file_of(module)
    try:
        return None if file is None else _bound(file, file.stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError, SyntaxError):
        return None


@lru_cache
def _bound(file: Path, mtime_ns: int) -> frozenset[str] | None:
    tree = ast.parse(file.read_text())
    if any(made in ast.dump(tree) for made in _MAKES_NAMES):
        return None
    found: set[str] = set()
    waiting: list[ast.AST] = [*tree.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            continue
        if isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Name):
            found.add(node.id)
        waiting += ast.iter_child_nodes(node)
    return frozenset(found)


def modules_named(group: str, settings: Mapping[str, object]) -> list[str]:
    """Return the modules of the code that settings name; raise ConfigError as `module_of` does."""
    given = {key: settings[key] for key, required in _CODE.items() if key in settings and (required or settings[key])}
    return [
        module_of(f"{group}.{key}", value) for key, value in given.items() if is_reference(value) or key == "target"
    ]


def is_there(module: str) -> bool:
    """Tell whether the top-level package of a module can be imported, from the folder of the command too."""
    # As `python -m` has it; the command's own folder is not there when it is a script of the environment.
    make_importable(os.getcwd())
    importlib.invalidate_caches()
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def make_importable(folder: str) -> bool:
    """Have modules of a folder found, behind everything that is found already; return whether that is new."""
    if folder in sys.path:
        return False
    # A folder of the user's may hold one that is called as a package of ours, which a checkout's finder gives way to.
    for own in ("methods", "tasks"):
        importlib.import_module(own)
    sys.path.append(folder)
    importlib.invalidate_caches()
    return True


def find(key: str, reference: object) -> object:
    """Return what a reference names; raise ConfigError in one line, as `module_of` does, and for code that fails."""
    module, path = module_of(key, reference), str(reference).partition(":")[2]
    return below(key, reference, imported(key, reference, module), path)


def find_function(key: str, reference: object) -> Callable[..., object]:
    """Return the function that a reference names; raise ConfigError likewise, and for what cannot be called."""
    found = find(key, reference)
    if not callable(found):
        raise ConfigError(f"{key}={reference}: is of type {type(found).__name__}; name a function")
    return found


def imported(key: str, value: object, module: str) -> object:
    """Return a module; raise ConfigError naming the key for one that raises when it is imported."""
    try:
        return importlib.import_module(module)
    # Whatever the code of somebody else raises, the end of a script included.
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{key}={value}: importing {module} {blame(error)}") from error


def below(key: str, value: object, owner: object, path: str) -> object:
    """Return the attribute at a dotted path; raise ConfigError naming the key and the nearest one."""
    for name in path.split(".") if path else ():
        if not hasattr(owner, name):
            kind = getattr(owner, "__name__", type(owner).__name__)
            raise ConfigError(f"{key}={value}: {kind} has no {name}{_near(name, dir(owner))}")
        owner = getattr(owner, name)
    return owner


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def blame(error: BaseException) -> str:
    """Return in one line what was raised and where, with how to see more."""
    text = " ".join(str(error).split())[:_SHOWN]
    frames = extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"raised {type(error).__name__}: {text}{place}; HYDRA_FULL_ERROR=1 shows the traceback"
