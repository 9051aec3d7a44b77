"""Knobs of every autoregressive method at values that a hurried hand types: one line, or a decoding that ends."""

from collections.abc import Iterator
from typing import Any

import pytest

from harness.commands.check.methods import subject
from harness.config.build import Builder
from harness.config.catalogue import METADATA, names, read
from harness.config.compatibility import fit_decoding
from harness.config.composition import compose
from harness.errors import ConfigError

BESIDE = {
    "speculative": ["model@draft=tiny_ar_draft"],
    "easyspec": ["model@draft=tiny_ar"],
    "deer": ["model@draft=tiny_mdm"],
    "dflash": ["model@draft=random_dflash"],
    "scmoe": ["model=tiny_moe"],
    "budget_forcing": ["method.wait=A", "method.end=B", "method.cue=C"],
    "staged_prompting": ["model=hf_causal"],
}
"""What a method needs beside it: models, and words that these read."""
IMPOSSIBLE = {int: ["x", "1.5", "null", str(10**22)], float: ["x", "nan", "inf", "null"], bool: ["x", "null"]}
"""What is no value of a knob of this type, whatever it means."""
ODD = {int: ["0", "-1", str(10**9)], float: ["-1", "1e30"], bool: []}
"""What may be one."""


def knobs() -> Iterator[tuple[str, str, type]]:
    """Yield every knob of an autoregressive method that is a number or a switch."""
    for name in names("method"):
        option = read("method", name)
        if option["family"] == "autoregressive":
            told = {key: value for key, value in option.items() if key not in METADATA}
            yield from ((name, knob, type(value)) for knob, value in told.items() if type(value) in ODD)


def refusal(name: str, knob: str, value: str) -> str | None:
    """Return the line that a value is refused with before a model is loaded, None where it is not."""
    words = [*BESIDE.get(name, []), f"method={name}", f"method.{knob}={value}"]
    words = words if any(one.startswith("model=") for one in words) else ["model=tiny_ar", *words]
    try:
        fit_decoding(compose([*words, "gen_length=8"]), Builder())
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("name", "knob", "kind"), [*knobs()])
def test_a_value_that_cannot_be_is_refused_by_its_key(name: str, knob: str, kind: Any) -> None:
    """Guards messages of libraries, values that are passed over, and lines that leave out what was typed."""
    for value in IMPOSSIBLE[kind]:
        said = refusal(name, knob, value)
        assert said is not None and said.startswith(f"method.{knob}"), f"{value}: {said}"
        assert "must" in said and "\n" not in said and len(said) < 300


@pytest.mark.parametrize(("name", "knob", "kind"), [*knobs()])
def test_an_odd_value_is_refused_by_its_key_or_decodes(name: str, knob: str, kind: Any) -> None:
    """Guards hangs, memory that nobody has, and tracebacks behind the loading of a model."""
    for value in ODD[kind]:
        said = refusal(name, knob, value)
        if said is not None:
            assert said.startswith(f"method.{knob}={value}") or f".{knob}={value}" in said or knob in said, said
            assert "\n" not in said and len(said) < 300, said
            continue
        made = subject(name, "causal", [f"method.{knob}={value}", *_suited(name, knob)])
        assert len(made.decode([0]).generations) == 1


def _suited(name: str, knob: str) -> list[str]:
    """Return what goes with a knob, so that it is read."""
    return ["method.tree=[3,5,8,10]"] if name == "swift" and knob == "tree_nodes" else []
