"""One plug-in: a folder of config files and modules, read without importing any of them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.config.interface import INTERFACE, declared

GROUPS = tuple("method model task protocol experiment measure tracker device launch figure training".split())
_REGISTERS = re.compile(r"^@(?:\w+\.)*policy\(", re.MULTILINE)
_ASIDE = re.compile(r"test_.*|.*_test|conftest|setup")


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A folder of parts. `origin` names it for people; `state` changes with every file of it.

    `conf` holds config files by group, None where there are none. `code` holds modules; `package` is its dotted name,
    empty for a folder whose modules stand at the top. `interface` is what it says it was written for.
    """

    origin: str
    conf: Path | None
    code: Path
    package: str = ""
    interface: object = INTERFACE
    state: tuple[tuple[str, int, int], ...] = ()

    @classmethod
    def of(cls, origin: str, folder: Path) -> "Plugin":
        """Read a folder: `conf` or the groups themselves in it, modules beside them; its own name wins."""
        code = folder.parent if folder.name == "conf" else folder
        conf = next((one for one in (code / "conf", folder) if any((one / group).is_dir() for group in GROUPS)), None)
        depth = 0
        while (code, *code.parents)[depth].joinpath("__init__.py").is_file():
            depth += 1
        name, interface = declared(code, conf)
        files = [*code.rglob("*.py"), *(conf.rglob("*.yaml") if conf else ())]
        states = [(str(file), (status := file.stat()).st_mtime_ns, status.st_size) for file in files]
        return cls(
            origin=name or origin,
            conf=conf,
            code=code,
            package=".".join(code.parts[-depth:]) if depth else "",
            interface=interface,
            state=tuple(sorted(states)),
        )

    @cached_property
    def options(self) -> dict[str, dict[str, Path]]:
        """Files by group and name."""
        conf = self.conf
        if conf is None:
            return {}
        return {group: {file.stem: file for file in sorted((conf / group).glob("*.yaml"))} for group in GROUPS}

    @property
    def root(self) -> Path:
        """The folder from which its modules are imported."""
        return self.code.parents[self.package.count(".")] if self.package else self.code

    @cached_property
    def policy_modules(self) -> dict[str, Path]:
        """Modules that register a policy, as far as their text tells, by dotted name."""
        return {name: file for name, file in self._modules() if _REGISTERS.search(file.read_text(errors="replace"))}

    def owns(self, file: str | Path | None) -> bool:
        """Say whether a file lies in it."""
        return file is not None and Path(file).is_relative_to(self.code)

    def _modules(self) -> Iterator[tuple[str, Path]]:
        for file in sorted(self.code.rglob("*.py")):
            inner = file.relative_to(self.code).with_suffix("").parts
            folders = [self.code.joinpath(*inner[:depth]) for depth in range(1, len(inner))]
            importable = all(part.isidentifier() for part in inner) and not _ASIDE.fullmatch(inner[-1])
            if importable and all((folder / "__init__.py").is_file() for folder in folders):
                named = inner[:-1] if inner[-1] == "__init__" else inner
                yield ".".join([*([self.package] if self.package else []), *named]), file
