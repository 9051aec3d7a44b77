"""The pages: files of that on parts of one's own are written as they stand there, and commands are run."""

import re
import shlex
from pathlib import Path

import pytest

from harness.config.interface import INTERFACE
from harness.config.plugin_folders import VARIABLE
from tests.conftest import RunDecbench

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "plugins.md").read_text()
DRAFTS = (Path(__file__).resolve().parent.parent / "docs" / "drafts.md").read_text()
FILES = re.findall(r"^```(?:python|yaml)\n# (\S+\.(?:py|yaml))\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the files of the page."""
    root = tmp_path_factory.mktemp("page")
    for name, text in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("decbench")])
def test_a_command_of_the_page_succeeds(
    line: str, folder: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch
):
    """Guards the interface that is written down: one part of each kind, complete, in a few lines."""
    monkeypatch.setenv(VARIABLE, str(folder))
    words = shlex.split(line)[1:]
    quick = ["kind=masked_diffusion"] if "check method=mean" in line else []
    process = call_decbench(*words, *quick, cwd=folder)
    assert (process.returncode, process.stderr) == (0, ""), process.stdout


def test_the_page_has_a_part_of_every_kind():
    """Guards against an extraction that finds nothing, and against a page of another interface."""
    assert len(FILES) == 14 and LINES[0] == "export DECBENCH_PATH=$PWD"
    assert f"\nInterface {INTERFACE}. " in PAGE and f"`INTERFACE = {INTERFACE}`" in PAGE


@pytest.mark.parametrize("line", re.findall(r"^decbench .*$", DRAFTS, re.MULTILINE))
def test_a_command_of_the_page_on_drafts_succeeds(line: str, folder: Path, call_decbench: RunDecbench):
    """Guards the commands that the page promises."""
    process = call_decbench(*shlex.split(line)[1:], cwd=folder)
    assert (process.returncode, process.stderr) == (0, ""), process.stdout
