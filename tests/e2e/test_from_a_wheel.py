"""From wheels, in a folder far from the checkout: a part of one's own written, checked, compared, edited, exported."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("conf", "harness", "methods", "tasks", "pyproject.toml", "README.md", "LICENSE")
PLUGIN = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "hasty-decoders"
version = "1.0"
[project.entry-points."decbench.plugins"]
hasty = "hasty_decoders"
[tool.setuptools]
packages = ["hasty_decoders"]
[tool.setuptools.package-data]
"*" = ["**/*.yaml"]
""",
    "hasty_decoders/__init__.py": "INTERFACE = 2\n",
    "hasty_decoders/rule.py": '''
"""Closes all there is."""

from harness.engine.shared.policy import policy


@policy("method/selector", "hasty")
class Hasty:
    """Close every open position at once."""

    def __call__(self, candidates, open_BL, quota_B, canvas):
        return open_BL
''',
    "hasty_decoders/conf/method/hasty.yaml": """
defaults: [window: blocks, scorer: confidence, selector: hasty, _self_]
family: diffusion
summary: Close a block in one step.
models: [masked_diffusion, block_diffusion]
block_length: 8
window: {length: "${..block_length}"}
""",
}
RUN = ("run", "model=tiny_mdm", "task=list_copy", "task.samples=4", "results_dir=store", "--json")
METHODS = "method=mine,hasty,llada,threshold,eb"
Command = Callable[..., subprocess.CompletedProcess[str]]


def pip(*arguments: object) -> None:
    """Run pip without a network."""
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--no-deps", "--no-index", "--quiet"]
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build wheels of decbench and of a plug-in, and install both, and nothing else, into a folder."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "decbench" / name if copy is shutil.copytree else _made(folder / "decbench") / name)
    for name, text in PLUGIN.items():
        _made((folder / "hasty" / name).parent)
        (folder / "hasty" / name).write_text(text)
    pip("wheel", "--no-build-isolation", "--wheel-dir", folder / "dist", folder / "decbench", folder / "hasty")
    pip("install", "--target", folder / "site", *(folder / "dist").glob("*.whl"))
    return folder / "site"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def decbench(site: Path, tmp_path: Path) -> Command:
    """Run the installed command in a fresh folder, with parts of one's own in `parts`."""
    paths = {"PYTHONPATH": os.pathsep.join([str(site), os.environ["PYTHONPATH"].split(os.pathsep)[0]])}
    folders = {"DECBENCH_PATH": str(tmp_path / "parts"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {**os.environ, **paths, **folders}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, site / "bin" / "decbench", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def runs(process: subprocess.CompletedProcess[str]) -> list[tuple[str, bool]]:
    """Return status, and whether it was taken from the store, of every run of a command."""
    assert process.returncode == 0, process.stdout + process.stderr
    return [(one["status"], one["resumed"]) for one in json.loads(process.stdout.splitlines()[-1])["runs"]]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_researcher_writes_checks_compares_edits_and_exports(site: Path, decbench: Command, tmp_path: Path):
    """Guards the whole way of a new user: packages without data, parts that only a checkout finds, old results."""
    assert "hasty" in decbench("list", "methods").stdout
    made = decbench("new", "method", "mine", "--into", "parts")
    assert made.returncode == 0, made.stderr
    checked = decbench("check", "method=mine", "kind=block_diffusion")
    assert checked.returncode == 0 and "broken:" not in checked.stdout, checked.stdout + checked.stderr
    assert runs(decbench(*RUN, METHODS)) == [("ok", False)] * 5
    assert runs(decbench(*RUN, METHODS)) == [("ok", True)] * 5
    rule = tmp_path / "parts" / "mine.py"
    text = rule.read_text()
    assert "above_BL >= 0" in text
    rule.write_text(text.replace("above_BL >= 0", "above_BL >= 1"))
    again = decbench(*RUN, METHODS)
    assert runs(again) == [("ok", False), *[("ok", True)] * 4]
    (said,) = (line for line in again.stderr.splitlines() if "run anew" in line)
    assert "changed mine" in said
    exported = decbench("results", "export", "results_dir=store", "--columns=setting,accuracy,nfe,run_id")
    rows = list(csv.DictReader(exported.stdout.splitlines()))
    assert sorted(row["setting"] for row in rows) == ["eb", "hasty", "llada", "mine", "mine", "threshold"]
    calls = {row["nfe"] for row in rows if row["setting"] == "mine"}
    assert len(calls) == 2 and "16.0" in calls
    where = decbench("show", "method=hasty").stdout
    assert str(site) in where
