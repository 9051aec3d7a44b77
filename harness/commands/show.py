"""`decbench show method=NAME|model=NAME|protocol=NAME [key=value ...]`: what a choice means.

Of a method every knob with type, default and value, and its policies; of a model every field; of a protocol what it
fixes for each task, with protocol.wording=FOLDER the files that its sentences are from.
"""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from harness.commands.console import console as output
from harness.config.catalogue import file_of, knobs, names, origin, read
from harness.config.overrides import parse
from harness.config.root import refuse_unknown


def main(argv: Sequence[str]) -> int:
    """Print the resolved method of a config: every knob with type, default and value, and its policies.

    With `protocol=` among the overrides, print what that protocol fixes for each of its tasks instead, and with
    `protocol.wording=` the files that their sentences are from; with `model=` and without `method=`, every field of
    that model.
    """
    refuse_unknown(parse(argv))
    from harness.config.build import build_method
    from harness.config.composition import compose, resolved
    from harness.config.overrides import numbers_typed

    if any(override.startswith("protocol=") for override in argv):
        return _show_protocol(argv)

    cfg = compose(list(argv))
    groups = {override.partition("=")[0] for override in argv}
    if "model" in groups and "method" not in groups:
        return _show_model(resolved(cfg)["model"], numbers_typed(argv))
    method, defaults = resolved(cfg)["method"], knobs(read("method", cfg.method.name))
    build_method(cfg)
    console, typed = output(), numbers_typed(argv)
    console.print(f"{method['name']}: {method['summary']}", highlight=False)
    console.print(f"paper: {method['paper'] or '-'}   runs on: {', '.join(method['models'])}", highlight=False)
    _print_origin(console, "method", method["name"])
    table = Table("knob", "type", "default", "value", box=None)
    for name, default in defaults.items():
        shown = "gen_length" if str(default).startswith("${") else str(default)
        value = typed.get(f"method.{name}", str(method[name]))
        table.add_row(f"method.{name}", _type_of(cfg.method, name), shown, value)
    console.print(table, highlight=False)
    slots = Table("policy", "class", box=None)
    for name, value in method.items():
        if isinstance(value, dict) and "_target_" in value:
            slots.add_row(f"method/{name}", value["_target_"])
    console.print(slots, highlight=False)
    return 0


def _print_origin(console: Console, group: str, name: str) -> None:
    """Say which file a choice that is not ours comes from."""
    if name in names(group) and (plugin := origin(group, name)):
        console.print(f"from: {plugin} ({file_of(group, name)})", highlight=False, soft_wrap=True)


def _show_model(model: dict, typed: Mapping[str, str]) -> int:
    loader, console = model["loader"], output()
    console.print(f"{model['name']}: {model['summary']}", highlight=False)
    _print_origin(console, "model", model["name"])
    table = Table("field", "value", box=None)
    for name in ("family", "_target_"):
        if name in loader:
            table.add_row(f"model.loader.{name}", str(loader[name]))
    for name, value in model.items():
        if name not in ("name", "summary", "loader"):
            table.add_row(f"model.{name}", typed.get(f"model.{name}", json.dumps(value)))
    console.print(table, highlight=False)
    return 0


def _show_protocol(argv: Sequence[str]) -> int:
    from harness.config.composition import compose
    from harness.config.wordings import origins

    chosen = compose(list(argv)).protocol
    protocol, console = read("protocol", chosen.name), output()
    given = [override for override in argv if not override.startswith(("protocol=", "task="))]
    origin = {} if chosen.get("wording") is None else origins(chosen.name, given)
    console.print(f"{protocol['name']}: {protocol['summary']}", highlight=False)
    console.print(f"paper: {protocol['paper'] or '-'}", highlight=False)
    _print_origin(console, "protocol", protocol["name"])
    table = Table("task", "wording", "template", "shots", "turns", "gen_length", "reading", "stop", box=None)
    for task, preset in protocol["tasks"].items():
        keys = ("template", "shots", "turns", "gen_length", "reading")
        wording, stop = preset.get("wording", "own"), json.dumps(preset["stop"])
        table.add_row(task, "checkout" if task in origin else wording, *(str(preset[key]) for key in keys), stop)
    console.print(table, highlight=False)
    for task, files in origin.items():
        console.print(f"wording of {task}: {files}", highlight=False, soft_wrap=True)
    if not origin and any(preset.get("wording") == "reconstruction" for preset in protocol["tasks"].values()):
        console.print("reconstruction: the form is the published one, the sentences are our own;", highlight=False)
        source = protocol.get("checkout", "the authors' code")
        console.print(f"for the published ones: git clone {source}, then protocol.wording=FOLDER", highlight=False)
    return 0


def _type_of(method, knob: str) -> str:
    """Return the annotation of the policy field that a knob is wired to."""
    from typing import get_type_hints

    from harness.config.knobs import knob_of
    from harness.config.located import class_at

    for slot, node in method.items():
        if not hasattr(node, "items") or "_target_" not in node:
            continue
        for field in node:
            if knob_of(method, str(slot), str(field)) == knob:
                hint = get_type_hints(class_at(f"method.{slot}", node))[str(field)]
                return _spell(hint)
    return ""


def _spell(hint: object) -> str:
    from enum import Enum

    if isinstance(hint, type) and issubclass(hint, Enum):
        return " | ".join(hint.__members__)
    return hint.__name__ if isinstance(hint, type) else str(hint)
