"""The workflow that ships: its shell steps, run as a server would run them, on a change and its base."""

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
ACTION = ".github/actions/gate/action.yml"
WORKFLOW = ".github/workflows/checks.yml"
# One run, step by step; the smoke experiment takes the same way.
OVERRIDES = "method=threshold task.samples=2 batch_size=2 gen_length=8 measure=traced gate.baseline=base.jsonl"


def _read(file: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / file).read_text())


def _steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every shell step, the action's in the place where the workflow uses it."""
    for job in _read(WORKFLOW)["jobs"].values():
        for step in job["steps"]:
            inner = _read(ACTION)["runs"]["steps"] if step.get("uses") == "./.github/actions/gate" else [step]
            yield from ((one["name"], one) for one in inner if "run" in one)


STEPS = dict(_steps())


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_shell_that_can_be_parsed(name: str):
    """Guards quoting, which YAML and bash both have an opinion on; what a step is given comes by its environment."""
    assert subprocess.run(["bash", "-n"], input=STEPS[name]["run"], text=True).returncode == 0
    assert "${{" not in STEPS[name]["run"], "an expression in a script is an injection"


def test_the_checks_are_tests_gate_and_comment_in_this_order():
    """Guards against a step that is dropped, and that the action declares what the workflow gives it."""
    assert list(STEPS) == ["Tests", "Install", "Check out the base", "Gate", "Comment"]
    given = next(one for one in _read(WORKFLOW)["jobs"]["gate"]["steps"] if one.get("uses", "").startswith("./"))
    assert {*given["with"]} <= {*_read(ACTION)["inputs"]}


def test_the_local_check_runs_the_gate_after_the_tests():
    """Guards against a change that passes here and is red on the server."""
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line.split()[0] for line in lines if "scripts/test" in line or "gate exp" in line] == [
        "./scripts/test", ".venv/bin/decbench"]  # fmt: skip
    assert any("set -euo pipefail" in line for line in lines)


@pytest.fixture
def checkouts(tmp_path: Path) -> Path:
    """Make a clone whose last commit is a change of a rule, with an environment that is installed already."""
    head = tmp_path / "head"
    _git(tmp_path, "clone", "--quiet", "--no-hardlinks", str(ROOT), str(head))
    # The tree as it is here, committed or not.
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        (head / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, head / name)
    bin_folder = head / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    (head / ".venv" / "pyvenv.cfg").write_text(f"command = python -m venv {head}/.venv\n")
    python = f'#!/bin/sh\nPYTHONPATH="{head}:$PYTHONPATH" exec {sys.executable} "$@"\n'
    for name, text in (("python", python), ("decbench", python.replace('"$@"', '-m harness "$@"'))):
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    subprocess.run(["bash", "-c", "source scripts/environment && stamp >.venv/stamp"], cwd=head, check=True)
    _git(head, "add", "-A")
    _git(head, "commit", "--quiet", "--allow-empty", "-m", "base")
    return head


def _git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def _expressions(values: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Put values in place of the expressions of a workflow."""
    return {name: re.sub(r"\$\{\{ (.*?) \}\}", lambda found: known[found[1]], value) for name, value in values.items()}


def _run(name: str, head: Path, known: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    tools = head.parent / "tools"
    tools.mkdir(exist_ok=True)
    comment = tools / "gh"
    comment.write_text(f'#!/bin/sh\necho "$@" >{head.parent}/comment\n')
    comment.chmod(comment.stat().st_mode | stat.S_IXUSR)
    env = {**os.environ, "GITHUB_STEP_SUMMARY": str(head.parent / "summary"), "PATH": f"{tools}:{os.environ['PATH']}"}
    env |= _expressions(STEPS[name].get("env", {}), known)
    return subprocess.run(["bash", "-e", "-c", STEPS[name]["run"]], cwd=head, env=env, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_change_of_a_rule_is_red_on_the_change_and_known_on_its_base(checkouts: Path):
    """Guards the way from a pull request to its comment: red blames the change, and only as long as the base is not."""
    head, report = checkouts, checkouts.parent / "report"
    known = {"inputs.overrides": OVERRIDES, "inputs.time": "off", "inputs.report": str(report), "github.token": "t",
             "runner.temp": str(head.parent), "github.event.pull_request.number": "7",
             "inputs.base": "HEAD~1"}  # fmt: skip
    command = [head / ".venv/bin/decbench", "gate", *OVERRIDES.split(), "--accept", "base"]
    subprocess.run(command, cwd=head, check=True, capture_output=True)
    file = head / "methods/diffusion/fast_dllm.py"
    file.write_text(file.read_text().replace("confidence_BL >= self", "confidence_BL <= self"))
    _git(head, "add", "-A")
    _git(head, "commit", "--quiet", "-m", "change")
    for step in ("Install", "Check out the base"):
        assert _run(step, head, known).returncode == 0
    red = _run("Gate", head, known)
    assert red.returncode == 1, red.stderr
    assert "| **red** | tiny_mdm | `threshold` |" in (report / "gate.md").read_text()
    assert (report / "gate.md").read_text() == (head.parent / "summary").read_text()
    assert _run("Comment", head, known).returncode == 0
    assert (head.parent / "comment").read_text().startswith("pr comment 7 --body-file")

    _git(report / "base", "checkout", "--quiet", "--detach", _head(head))
    assert _run("Gate", head, known).returncode == 0
    assert "| known | tiny_mdm | `threshold` |" in (report / "gate.md").read_text()


def _head(folder: Path) -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True).stdout.strip()
