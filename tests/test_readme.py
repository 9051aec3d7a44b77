"""The commands of the README and of the pages behind it, executed with the arguments that a reader would type."""

import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.commands.list import method_table
from tests.conftest import RunDecbench

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
# In the order in which they are read; test_docs.py tries those that bring files of their own.
BEHIND = ("sweeps", "models", "results", "gate", "tasks")
PAGES = "\n".join([README, *((ROOT / "docs" / f"{page}.md").read_text() for page in BEHIND)])
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGES, re.MULTILINE | re.DOTALL)
# A block that needs what a bare machine lacks says so: "# needs: a GPU".
LINES = [line for block in BLOCKS if "# needs:" not in block for line in block.replace("\\\n", " ").splitlines()]
# Long ones, which these files execute through the same dispatcher: runs/test_conform.py and runs/test_matrix.py.
ELSEWHERE = (["decbench", "conform"], ["decbench", "list", "compatibility"])
COMMANDS = [words for line in LINES if (words := shlex.split(line, comments=True))]


EXECUTED = [words for words in COMMANDS if words[0] == "decbench" and words not in ELSEWHERE]
# What later commands read: runs, a baseline, parts of one's own.
WRITING = ("run", "gate", "new")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Somebody who carries out the commands of the page, each once, in one folder."""

    folder: Path
    done: dict[int, subprocess.CompletedProcess[str]] = field(default_factory=dict)

    def carry_out(self, at: int, call: RunDecbench) -> subprocess.CompletedProcess[str]:
        """Return what became of a command, behind all those before it that write something."""
        for place, words in enumerate(EXECUTED[: at + 1]):
            if place not in self.done and (place == at or words[1] in WRITING):
                self.done[place] = call(*words[1:], cwd=self.folder)
        return self.done[at]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Give all commands one working directory, with a reader's file, since later ones read what earlier ones stored."""
    folder = tmp_path_factory.mktemp("readme")
    (own,) = re.findall(r"^```yaml\n(# mine.yaml\n.*?)^```", PAGES, re.MULTILINE | re.DOTALL)
    (folder / "mine.yaml").write_text(own)
    return Reader(folder=folder)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("at", range(len(EXECUTED)), ids=[" ".join(words) for words in EXECUTED])
def test_a_command_of_the_readme_succeeds(at: int, reader: Reader, call_decbench: RunDecbench):
    """Guards against a README that promises a command or an option which is gone, in whatever order tests run."""
    process = reader.carry_out(at, call_decbench)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] != "decbench"], ids=" ".join)
def test_any_other_command_is_known(words: list[str]):
    """Guards against commands which nothing checks; a script that is named exists and can be executed."""
    if words[0].startswith("./"):
        script = ROOT / words[0]
        assert script.is_file()
        assert script.stat().st_mode & 0o111
    else:
        assert words[0] in {"git", "cd", "source"}


def test_the_readme_shows_the_first_steps():
    """Guards against an extraction that finds nothing, which would pass every other test here."""
    assert ["./scripts/demo"] in COMMANDS
    assert any(words[0] == "decbench" for words in COMMANDS)


def test_the_table_of_methods_is_the_one_that_is_printed():
    """Guards the README's claims: a new method, paper or conformance count shows at once."""
    shown = re.search(r"<!-- methods -->\n(.*?)\n<!-- /methods -->", README, re.DOTALL)
    assert shown is not None and shown[1] == method_table()
