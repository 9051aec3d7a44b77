"""Digests of the code that produces a number: modules reached by static imports, without comments and docstrings.

Reached means: from the modules given, along every import statement, also those inside functions, as long as they lead
to code that a user may edit: the packages of this project, those of plug-ins, and modules that no installed package
has. Other packages are named by version.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from harness.config import plugins
from harness.config.plugin import Plugin
from harness.config.remembered import remembered
from harness.references import file_of

OWN = frozenset({"harness", "methods", "tasks"})
_NO_FILES = frozenset({*sys.stdlib_module_names, "__main__"})
_SHOWN = 16


@dataclass(frozen=True, kw_only=True)
class Code:
    """`modules` maps a module's name to the digest of its statements, `versions` a foreign package to its version."""

    modules: Mapping[str, str]
    versions: Mapping[str, str]


class Reader:
    """Reads code; a module is read once, so that a command has one view of it."""

    def __init__(self) -> None:
        self._sources = plugins.current()
        self._modules: dict[str, tuple[str | None, list[str]]] = {}
        self._found: dict[frozenset[str], Code] = {}

    def code_of(self, roots: Iterable[str]) -> Code:
        """Return what the modules named `roots` reach; their top-level packages count as editable, as ours do."""
        key = frozenset(roots)
        if key not in self._found:
            self._found[key] = self._reached(key)
        return self._found[key]

    def _reached(self, roots: frozenset[str]) -> Code:
        waiting = list(roots)
        editable = OWN | {name.partition(".")[0] for name in waiting}
        modules: dict[str, str] = {}
        foreign: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in modules:
                continue
            digest, imported = self._read(name)
            if digest is None:
                continue
            modules[name] = digest
            for target in imported:
                top = target.partition(".")[0]
                if top in editable or has_no_version(top):
                    waiting.extend(found for found in _prefixes(target) if found not in modules)
                elif top not in sys.stdlib_module_names:
                    foreign.add(top)
        return Code(modules=dict(sorted(modules.items())), versions=_versions(foreign))

    def _read(self, name: str) -> tuple[str | None, list[str]]:
        if name not in self._modules:
            self._modules[name] = _read(name, self._sources)
        return self._modules[name]


def differences(old: Code, new: Code) -> list[str]:
    """Name what differs between two codes: modules that changed, came or went, and versions as `old -> new`."""
    named = sorted(
        name for name in old.modules.keys() | new.modules.keys() if old.modules.get(name) != new.modules.get(name)
    )
    packages = sorted(
        name for name in old.versions.keys() | new.versions.keys() if old.versions.get(name) != new.versions.get(name)
    )
    return [*named, *(f"{p} {old.versions.get(p, 'none')} -> {new.versions.get(p, 'none')}" for p in packages)]


def _prefixes(target: str) -> Iterator[str]:
    """Yield the module and the packages that importing a name may run; `a.b.c` may be a name inside of `a.b`."""
    parts = target.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


def has_no_version(top: str) -> bool:
    """Say whether a top-level module is code that has no version: a plug-in's, or of no installed package."""
    if top in _NO_FILES:
        return False
    return _is_unversioned(top, plugins.current())


@cache
def _is_unversioned(top: str, sources: tuple[Plugin, ...]) -> bool:
    file = _file_of(top, sources)
    return file is not None and (plugins.owner(file) is not None or _versions_of(top) is None)


def _read(name: str, sources: tuple[Plugin, ...]) -> tuple[str | None, list[str]]:
    """Return digest and imports of a module; (None, []) for what is no module of Python source."""
    file = _file_of(name, sources)
    if file is None or not file.is_file():
        return None, []
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    digest, *imported = remembered(f"code of {package}", file, lambda path: _parsed(path, package)).split()
    return digest, imported


@cache
def _file_of(name: str, sources: tuple[Plugin, ...]) -> Path | None:
    """Return the source file of a module; `sources` are the plug-ins in use, on which it depends."""
    return file_of(name)


def _parsed(file: Path, package: str) -> str:
    """Return the digest of a file's statements and the names it imports, separated by blanks."""
    tree = ast.parse(file.read_bytes())
    imported = sorted(set(_imports(tree, package)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = _without_docstring(node.body)
    return " ".join([hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:_SHOWN], *imported])


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest
    return body


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            yield from (f"{origin}.{alias.name}" if alias.name != "*" else origin for alias in node.names)


@cache
def _versions_of(top: str) -> str | None:
    try:
        return version(top)
    except PackageNotFoundError:
        owners = packages_distributions().get(top, [])
        return version(owners[0]) if owners else None


def _versions(packages: Iterable[str]) -> dict[str, str]:
    python = ".".join(map(str, sys.version_info[:3]))
    known = {name: _versions_of(name) for name in sorted(packages)}
    return {"python": python, **{name: found for name, found in known.items() if found is not None}}
