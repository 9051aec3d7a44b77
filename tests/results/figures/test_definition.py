"""What a YAML file may say, and one line for everything else."""

from typing import Any

import pytest

from harness.config.catalogue import names, read
from harness.errors import ConfigError
from harness.results.figures.definition import TABLE, read_definition

SCATTER = {"kind": "scatter", "x": "nfe", "y": "accuracy"}


def test_a_definition_is_what_was_said():
    """Guards one value and several, and filters of every type."""
    option = SCATTER | {
        "groups": ["model", "setting"],
        "runs": {"task": ["a", "b"], "n": 2, "dirty": True, "tps": None},
    }
    found = read_definition(option, "mine.yaml")
    assert (found.x, found.groups) == (("nfe",), ("model", "setting"))
    assert found.runs == {"task": {"a", "b"}, "n": {"2"}, "dirty": {"true"}, "tps": {"null"}}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ([], "holds no figure"),
        ({"x": "nfe"}, "kind: None: nothing is drawn like this"),
        ({"kind": "scater"}, "kind: scater: nothing is drawn like this; did you mean scatter?"),
        ({"kind": "scatter", "x": "nfe"}, "lacks y, which kind: scatter draws"),
        (SCATTER | {"grups": "model"}, "grups: a figure has no such key; did you mean groups?"),
        ({"kind": "bars", "x": "nfe"}, "x: kind: bars has no use for it; leave it out"),
        (SCATTER | {"x": "nfee"}, "x: runs have no column nfee; did you mean nfe?"),
        (SCATTER | {"x": "decided_at"}, "x: runs have no column decided_at"),
        (SCATTER | {"groups": "modl"}, "groups: runs have no column modl; did you mean model?"),
        (SCATTER | {"panels": "tsk"}, "panels: runs have no column tsk; did you mean task?"),
        (SCATTER | {"runs": {"taks": "a"}}, "runs: runs have no column taks; did you mean task?"),
        (SCATTER | {"runs": "task=a"}, "runs: task=a: must be filters"),
        (SCATTER | {"runs": {"task": []}}, "runs: task: []: must be a value or a list of values"),
        (SCATTER | {"runs": {"task": {"a": 1}}}, "must be a value or a list of values"),
        (SCATTER | {"x": 3}, "x: 3: must be a word or a text"),
        (SCATTER | {"log": "z"}, "log: z: is no axis; name x, y or both"),
        (SCATTER | {"front": "yes"}, "front: yes: must be true or false"),
        (SCATTER | {"width": 200}, "width: 200: must be inches, from 2 to 20"),
        (SCATTER | {"width": 20.5}, "width: 20.5: must be inches, from 2 to 20"),
        (SCATTER | {"width": True}, "width: True: must be inches"),
        ({"kind": "two_axes", "x": "nfe", "y": "accuracy"}, "y: two columns are drawn over x"),
        ({"kind": "lines", "x": ["nfe", "seed"], "y": "tpf"}, "x: nfe, seed: kind: lines takes one column"),
        (
            {"kind": "two_axes", "x": ["nfe", "seed"], "y": ["tpf", "accuracy"]},
            "x: nfe, seed: kind: two_axes takes one",
        ),
        ({"kind": "box", "y": "decided_at"}, "y: decided_at: holds list<"),
        ({"kind": "lines", "x": "output_text", "y": "accuracy"}, "x: output_text: holds string, no numbers"),
        (SCATTER | {"name": "../else"}, "name: ../else: must be the name of a file, without its folder"),
        ({"kind": "box", "y": "latencys"}, "y: samples have no column latencys; did you mean latency_s?"),
    ],
)
def test_a_wrong_definition_ends_in_one_line(option: Any, message: str):
    """Guards against tracebacks, and names the file and the key."""
    with pytest.raises(ConfigError) as refusal:
        read_definition(option, "mine.yaml")
    assert str(refusal.value).startswith("mine.yaml: ")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", names("figure"))
def test_our_figures_are_well_defined(name: str):
    """Guards the shipped files, each with a summary for the list and its caption."""
    from harness.commands.figures import definition_of

    assert definition_of(name, tables=read("figure", name)["kind"] == TABLE).summary
