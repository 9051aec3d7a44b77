"""The interface that plug-ins are written for: what docs/plugins.md says of methods, policies, caches, tasks, models.

A plug-in may say which one it means: `interface: 2` in a `plugin.yaml` beside its groups or modules, which may also
give its `name`, or `INTERFACE = 2` in its package. One that was written for another interface is left out, with what
changed.
"""

import ast
from pathlib import Path

INTERFACE = 2
CHANGES = {
    1: "the first that plug-ins can name",
    2: "the engine's modules lie in harness.engine.shared, .diffusion and .autoregressive; policies say"
    " `needs` and `gives` in place of `fit`, `reads` and their kin, each of which is refused with what takes its place;"
    " a cache's `evaluate` and a model's `forward` take one request",
}
"""What each interface changed against the one before it."""

_MOVED = {
    "branches": "shared.kv_tree (DraftsStore), diffusion.draft_forward",
    "canvas": "diffusion.canvas; GIVEN and UNDECIDED: shared.generation",
    "diffusion": "diffusion.loop",
    "draft_verify": "autoregressive.loop",
    "drafting": "autoregressive.drafting, autoregressive.method; Sequences: autoregressive.sequences",
    "positional": "shared.indexing (per_row, positions, filled), shared.positional",
    "sampling": "diffusion.drawing; invert and keep_top: shared.sampling",
    **{name: f"shared.{name}" for name in ("generation", "model", "policy", "prediction", "randomness", "records")},
    **{name: f"diffusion.{name}" for name in ("margins", "method", "policies", "reuse", "standing")},
}
"""Where interface 2 has the modules of harness.engine that interface 1 had."""

FILE = "plugin.yaml"


def declared(code: Path, conf: Path | None) -> tuple[str | None, object]:
    """Return the name that a plug-in gives itself, and the interface that it says it was written for: ours if none.

    A file that cannot be read says that: it names no interface of ours.
    """
    for file in dict.fromkeys((code / FILE, (conf or code) / FILE)):
        if file.is_file():
            return _said(file)
    return None, _in_package(code / "__init__.py")


def mismatch(interface: object) -> str:
    """Return why a plug-in for another interface is left out, and what would do."""
    if not isinstance(interface, int) or isinstance(interface, bool):
        return f"interface: {interface}: must be a whole number; this decbench has interface {INTERFACE}"
    if interface > INTERFACE:
        return f"interface: {interface}: this decbench has interface {INTERFACE}; update it"
    changed = "; ".join(f"{version} is {text}" for version, text in CHANGES.items() if version > interface)
    return f"interface: {interface}: this decbench has interface {INTERFACE} ({changed}); see docs/plugins.md"


def moved(error: BaseException) -> str:
    """Return where a module is that an import of a plug-in did not find: "" if it was none of the engine's."""
    name = (error.name or "") if isinstance(error, ImportError) else ""
    room, _, module = name.rpartition(".")
    if room != "harness.engine" or module not in _MOVED:
        return ""
    return f"; since interface 2 it is harness.engine.{_MOVED[module]}"


def _said(file: Path) -> tuple[str | None, object]:
    import yaml

    try:
        said = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return None, f"cannot be read ({str(error).splitlines()[0]})"
    if not isinstance(said, dict):
        return None, f"cannot be read ({FILE} holds no keys)"
    return said.get("name"), said.get("interface", INTERFACE)


def _in_package(file: Path) -> object:
    """Return the value of INTERFACE in a package, without importing it."""
    if not file.is_file() or "INTERFACE" not in (text := file.read_text(errors="replace")):
        return INTERFACE
    try:
        statements = ast.parse(text).body
    except SyntaxError:
        return INTERFACE
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id="INTERFACE")], value=ast.Constant(value=value)):
                return value
    return INTERFACE
