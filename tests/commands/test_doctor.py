"""`decbench doctor` on machines that lack something: each finding comes with one command."""

import importlib.metadata

import pytest

from harness.commands import doctor
from tasks.code.sandbox import tiers


def finding(kind: str, name: str) -> doctor.Finding:
    return {"task": doctor._task, "model": doctor._model}[kind](name)


def test_a_task_whose_grader_is_missing_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards MATH-500 on a machine without the symbolic grader: it would be asked for hours and graded never."""

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("tasks.math.verifier.version", absent)
    found = finding("task", "math500")
    assert (found.available, found.remedy) == (False, "pip install 'decbench[math]'")


def test_a_task_that_cannot_be_shut_in_names_what_shuts_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against generated programs being refused without a way out."""
    weak = tiers.Isolation(tier=tiers.Tier.LIMITS, missing={})
    monkeypatch.setattr(tiers, "isolation", lambda: weak)
    found = finding("task", "humaneval")
    assert (found.available, found.remedy) == (False, "apt install bubblewrap")


def test_what_is_there_needs_no_command() -> None:
    """Guards the other half of the table."""
    for kind, name in (("task", "gsm8k"), ("task", "list_sort"), ("model", "oracle")):
        found = finding(kind, name)
        assert found.available and not found.remedy
    assert finding("model", "oracle").detail == "0 parameters, no checkpoint"
