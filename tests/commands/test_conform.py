"""Reference trajectories, replayed through the real loop and the real configs."""

import json
from collections import Counter
from pathlib import Path

import pytest

from harness import cli
from harness.commands.conform import REFERENCES, main, read_cases
from harness.config.catalogue import names
from harness.errors import DataError

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


def outcome(tmp_path: Path, capsys: pytest.CaptureFixture[str], *cases: dict) -> tuple[int, list[tuple[str, str]]]:
    """Replay a file of `cases`; return the exit code and what was said of each."""
    file = tmp_path / "cases.json"
    file.write_text(json.dumps({"version": 1, "cases": cases}))
    code = main([str(file), "--json"])
    return code, [(case["status"], case["detail"]) for case in json.loads(capsys.readouterr().out)["cases"]]


GOOD = next(c for c in CASES if c["method"] == "llada")
GIVEN = next(c for c in CASES if c["method"] == "prophet")
BAD = {
    "lacks model.f2": {"model": {key: value for key, value in GOOD["model"].items() if key != "f2"}},
    "stride is no knob of llada": {"params": {"stride": 2}},
    "out of bounds": {"model": {**GOOD["model"], "mask_id": 99}},
    "has no place 99": {"method": "prophet", "params": {**GIVEN["params"], "constraints": {"99": 1}}},
    "dimensions 'str'": {"prompt": "words"},
}


@pytest.mark.parametrize("what", BAD)
def test_a_case_that_cannot_be_decoded_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str):
    """Guards the cases behind a bad one, and that its verdict says what is wrong."""
    code, said = outcome(tmp_path, capsys, {**GOOD, **BAD[what]}, GOOD)
    assert code == 1
    assert [status for status, _ in said] == ["failed", "passed"]
    assert what in said[0][1]


def test_what_is_not_compared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Guards against a pass that compared nothing; what else stands in a case or its model is free."""
    noted = {**GOOD, "note": "x", "model": {**GOOD["model"], "seed": 3}}
    extra = {**noted, "expected": {**GOOD["expected"], "seconds": 1}}
    empty = {**GOOD, "expected": {"seconds": 1}}
    code, said = outcome(tmp_path, capsys, noted, extra, empty)
    assert (code, said) == (
        1,
        [("passed", ""), ("passed", "seconds: not compared"), ("failed", "nothing to compare; seconds: not compared")],
    )


def test_infinity_is_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Guards JSON's word for it: no gap is that large, and this case stops at no gap of 7.5 either."""
    assert GIVEN["expected"]["exit_step"] is None
    never = {**GIVEN, "params": {**GIVEN["params"], "gap_thresholds": [float("inf"), float("inf"), 1e5]}}
    assert outcome(tmp_path, capsys, never) == (0, [("passed", "")])


def test_the_table_says_what_went_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Guards the line of every case that is not simply passed, brackets and all."""
    file = tmp_path / "cases.json"
    unknown = {**GOOD, "id": "b", "method": "no_such"}
    file.write_text(json.dumps({"cases": [{**GOOD, "id": "a", "expected": {"ids": [1]}}, unknown]}))
    assert main([str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("a: ids: expected [1], got [") for line in lines)
    assert "b: no such method yet" in lines


def test_a_case_without_a_key_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Guards the cases beside one that is not whole."""
    half = {k: v for k, v in GOOD.items() if k not in ("params", "prompt")}
    assert outcome(tmp_path, capsys, half, GOOD, {}) == (
        1,
        [
            ("failed", "lacks params, prompt"),
            ("passed", ""),
            ("failed", "lacks id, method, params, gen_length, prompt, model, expected"),
        ],
    )


@pytest.mark.parametrize("params", [{"selector._target_": "os.abort"}, {"selector": {"_target_": "os.abort"}}])
def test_a_case_chooses_no_class(params: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Guards against a file of data that names what is to be called."""
    code, said = outcome(tmp_path, capsys, {**GOOD, "params": params}, GOOD)
    assert (code, [status for status, _ in said]) == (1, ["failed", "passed"])
    assert said[0][1].startswith(f"params: {next(iter(params))} is no knob of {GOOD['method']}")


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"version": 1}', '{"cases": []}', '{"cases": [1]}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str):
    """Guards the one clear line for something that is no trajectory file."""
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(DataError, match=r"broken\.json: not a trajectory file"):
        read_cases(file)
