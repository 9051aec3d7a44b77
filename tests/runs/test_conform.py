"""Reference trajectories, replayed through the real loop and the real configs."""

import json
from collections import Counter
from pathlib import Path

import pytest

from harness import cli
from harness.errors import DataError
from harness.runs.catalogue import names
from harness.runs.conform import REFERENCES, main, read_cases

CASES = [case for file in REFERENCES for case in read_cases(file)]


def test_every_case_of_a_built_method_passes(capsys: pytest.CaptureFixture[str]):
    """Guards ids, forwards and commit steps against the public implementations, and that nothing is left out unsaid."""
    assert cli.main(["conform", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    built = Counter(case["method"] for case in CASES if case["method"] in names("method"))
    assert Counter(case["method"] for case in report["cases"] if case["status"] == "passed") == built
    assert sum(report["summary"].values()) == len(CASES)
    assert report["summary"]["failed"] == 0


def test_a_difference_is_named_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Guards against a comparison that accepts anything."""
    case = next(c for c in CASES if c["method"] == "threshold")
    case["expected"]["commit_step"][0] += 1
    file = tmp_path / "cases.json"
    file.write_text(json.dumps({"version": 1, "cases": [case]}))
    assert main([str(file), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["summary"] == {"passed": 0, "failed": 1, "not built": 0}
    assert "commit_step: expected" in report["cases"][0]["detail"]


@pytest.mark.parametrize("text", ["", "[]", '{"cases": [{}]}', '{"version": 1}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str):
    """Guards the one clear line for something that is no trajectory file."""
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(DataError, match=r"broken\.json: not a trajectory file"):
        read_cases(file)
