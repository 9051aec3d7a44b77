"""`decbench new method|task|model NAME [--into FOLDER]`: a part of one's own, working, to start from."""

import keyword
import sys
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from harness.config.catalogue import names, refused
from harness.errors import ConfigError

KINDS = ("method", "task", "model")
_RUN = {
    "method": "method={name} model=tiny_mdm task=list_copy task.samples=8",
    "task": "task={name} model=tiny_mdm method=threshold",
    "model": "model={name} method=threshold task=list_copy task.samples=8",
}


def main(argv: Sequence[str]) -> int:
    """Write a module, an option and a test into a folder, and say how to go on; nothing is overwritten."""
    kind, name, folder = _asked(list(argv))
    written = write(kind, name, folder)
    for file in written:
        sys.stdout.write(f"wrote {file}\n")
    words = _RUN[kind].format(name=name)
    sys.stdout.write(
        f"\nexport DECBENCH_PATH={folder.resolve()}\n"
        f"decbench run {words}\ndecbench check {kind}={name}\npytest {written[-1]}\n"
    )
    return 0


def _asked(words: list[str]) -> tuple[str, str, Path]:
    """Return kind, name and folder; raise ConfigError for anything else."""
    said, into = " ".join(words), Path()
    for at, word in enumerate(words):
        flag, given, value = word.partition("=")
        if flag == "--into":
            value = value if given else "".join(words[at + 1 : at + 2])
            if not value:
                raise ConfigError(f"new {said}: --into names no folder")
            into, words = Path(value), words[:at] + words[at + (1 if given else 2) :]
            break
    if len(words) != 2 or words[0] not in KINDS:
        raise ConfigError(f"new {said}: write decbench new {'|'.join(KINDS)} NAME [--into FOLDER]")
    return words[0], words[1], into


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """Write the files of a part; raise ConfigError, before any is written, for a name or a file that is taken."""
    _refuse_name(kind, name, folder)
    texts = {
        folder / f"{name}.py": "module.py",
        folder / "conf" / kind / f"{name}.yaml": "option.yaml",
        folder / "tests" / f"test_{name}.py": "test.py",
    }
    if there := [file for file in texts if file.exists()]:
        raise ConfigError(f"{there[0]}: exists already and is left as it is; choose another name, or --into FOLDER")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--into={folder}: is no folder")
    title = "".join(part.capitalize() for part in name.split("_"))
    for file, template in texts.items():
        text = files("harness.commands.new").joinpath(kind, f"{template}.template").read_text()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("NAME", name).replace("CLASS", title))
        except OSError as error:
            raise ConfigError(f"{file}: cannot be written ({error.strerror})") from None
    return list(texts)


def _refuse_name(kind: str, name: str, folder: Path) -> None:
    asked = f"new {kind} {name}"
    if not name.isascii() or not name.isidentifier() or name != name.lower() or name.startswith("_"):
        raise ConfigError(f"{asked}: a name is lower-case letters, digits and _, and begins with a letter")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise ConfigError(f"{asked}: is a word of Python; choose another name")
    if name in names(kind) or refused(kind, name):
        raise ConfigError(f"{asked}: {kind}={name} exists already; choose another name")
    if name in sys.stdlib_module_names or (find_spec(name) is not None and not (folder / f"{name}.py").exists()):
        raise ConfigError(
            f"{asked}: a module {name} is installed, which would be imported in its place; choose another"
        )
    if kind == "method" and name in _selectors():
        raise ConfigError(f"{asked}: there is a selector {name}; choose another name")


def _selectors() -> list[str]:
    from harness.config import options

    options.register()
    return options.names_of("method/selector")
