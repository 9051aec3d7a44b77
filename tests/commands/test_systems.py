"""`decbench list systems`: the forty systems, and whether what is said of them is so."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.commands import systems
from harness.errors import DataError
from tests.conftest import RunDecbench

SHOWN = Path(__file__).resolve().parents[2] / "results" / "systems.md"


def test_the_forty_are_there_once_and_in_order():
    """Guards against a system that is forgotten, and a list that grows past its name."""
    numbers = [one.number for one in systems.systems() if one.number is not None]
    assert numbers == list(range(1, 41))
    names = [one.name for one in systems.systems()]
    assert len(names) == len(set(names))


def test_what_is_said_to_run_exists_and_what_is_said_to_lack_does_not():
    """Guards a table that names a method which is gone, or still misses one that has come."""
    assert systems.wrong_parts() == []


@pytest.mark.parametrize(
    ("parts", "wrong"),
    [
        ({"runs": {"method": ("prophte",)}}, "Prophet: method prophte does not exist"),
        ({"runs": {"method/cache": ("threshold",)}}, "Prophet: method/cache threshold does not exist"),
        ({"runs": {"command": ("guess",)}}, "Prophet: command guess does not exist"),
        ({"lacks": {"method": ("prophet",)}}, "Prophet: method prophet exists"),
        ({"lacks": {"command": ("run",)}}, "Prophet: command run exists"),
    ],
)
def test_a_wrong_entry_is_found(parts: dict, wrong: str, monkeypatch: pytest.MonkeyPatch):
    """Guards the check above against one that finds nothing, for every kind of part."""
    (prophet,) = (one for one in systems.systems() if one.name == "Prophet")
    monkeypatch.setattr(systems, "systems", lambda: (replace(prophet, **parts),))
    assert systems.wrong_parts() == [wrong]


def test_an_entry_says_something():
    """Guards against a system that is listed and left at that."""
    with pytest.raises(DataError, match="Prophet: names neither what runs nor what it lacks"):
        systems.system_of({"name": "Prophet", "is": "early commit"})


def test_the_table_that_is_shown_is_the_one_that_is_printed(call_decbench: RunDecbench):
    """Guards the committed table against what has come or gone since."""
    assert SHOWN.read_text() == call_decbench("list", "systems", "--markdown").stdout


def test_programs_and_terminals_get_all_of_them(call_decbench: RunDecbench):
    """Guards the other two forms."""
    entries = json.loads(call_decbench("list", "systems", "--json").stdout)
    assert entries[3]["name"] == "Prophet" and entries[3]["runs"]["method"] == ["prophet"]
    assert len(entries) == len(systems.systems())
    lines = call_decbench("list", "systems").stdout.splitlines()
    assert "`prophet`" in lines[4] and lines[4].split()[0] == "4"
