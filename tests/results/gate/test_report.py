"""What people, CI servers and programs are told."""

import json
from xml.etree import ElementTree

import pytest

from harness.results.gate.report import Report, junit, markdown, plain
from harness.results.gate.timing import Speed
from harness.results.gate.verdicts import Colour, Finding, Verdict
from tests.results.gate.factory import setting

OUTPUTS = Finding(
    check="outputs", colour=Colour.RED, detail="committed 1:7|\x01 -> ended", samples=2, sample="s0", step=3
)
TIE = Finding(check="outputs", colour=Colour.TIE, detail="tie", samples=1, sample="s1")
SLOW = Speed(setting="tiny llada copy", rounds=7, ratio=1.31, spread=0.01)
MADE = Report(
    verdicts=[
        Verdict(setting=setting("a"), findings=(OUTPUTS, TIE)),
        Verdict(setting=setting("b"), findings=(TIE,)),
        Verdict(setting=setting("c")),
    ],
    speeds=[SLOW],
)


def test_the_table_names_method_sample_and_step():
    """Guards the comment under a pull request, and a table that a bar in a text would break."""
    lines = markdown(MADE).splitlines()
    assert lines[0] == "### decbench gate: red"
    assert lines[2] == "3 settings: 1 as in the baseline, 1 red, 1 that differ without blame."
    assert lines[6].startswith("| **red** | tiny | `llada steps=2` | copy | outputs | 2 | s0 | 3 | committed 1:7\\|")
    assert any("slower" in line and "1.310" in line for line in lines)


def test_junit_fails_what_is_red_and_skips_what_is_not_to_blame():
    """Guards servers that count failures, and characters that XML does not have."""
    suite = ElementTree.fromstring(junit(MADE).encode())
    kinds = {case.get("name"): [one.tag for one in case] for case in suite}
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "1", "2")
    assert kinds["tiny llada copy"] == ["skipped"]
    assert [case.get("classname") for case in suite][:2] == ["tiny.llada", "tiny.llada"]


def test_programs_get_all_of_it():
    """Guards the JSON: every finding with its colour, and times with what was allowed."""
    told = json.loads(json.dumps(plain(MADE)))
    assert told["verdict"] == "red"
    assert [one["verdict"] for one in told["settings"]] == ["red", "green", "green"]
    assert told["settings"][0]["findings"][0] | {"value": ""} == {
        "check": "outputs", "colour": "red", "detail": OUTPUTS.detail, "samples": 2, "sample": "s0", "step": 3,
        "value": "",
    }  # fmt: skip
    assert (told["time"][0]["pace"], told["time"][0]["allowed"]) == ("slower", 1.05)


@pytest.mark.parametrize("blocks", [False, True])
def test_a_slowdown_is_red_where_it_blocks(blocks: bool):
    """Guards advice against turning a pull request red on its own."""
    assert Report(verdicts=[], speeds=[SLOW], blocks=blocks).red is blocks
