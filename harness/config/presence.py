"""Refusal of a run whose checkpoint is not on this machine, in the second before a framework is imported."""

from collections.abc import Sequence

from harness.config.catalogue import names, read
from harness.models import hub, packaged


def refuse_absent_model(argv: Sequence[str]) -> None:
    """Raise ConfigError or MissingDependency, with the command that would get it, if a plain `model=NAME` is not here.

    Sweeps are left alone: they store what they have to skip. So is everything that only composing can tell; the
    check before a model is loaded covers it.
    """
    given = dict(a.split("=", 1) for a in argv if "=" in a)
    name = given.get("model", "")
    if name not in names("model") or "experiment" in given or given.get("on_error") == "record":
        return
    if any("," in value for value in given.values()):
        return
    option = read("model", name)
    for key in ("hub_id", "path", "package", "file"):
        if f"model.{key}" in given:
            option[key] = None if given[f"model.{key}"] == "null" else given[f"model.{key}"].strip("'\"")
    if "package" in option:
        packaged.check(option)
    hub.find_of(option)
