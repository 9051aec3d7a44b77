"""Every file of the group task makes a task that can be asked and answered."""

from pathlib import Path

import pytest

import conf
from harness.config.build import build_task
from harness.config.composition import compose
from harness.errors import ConfigError
from harness.models.tokenizer import SymbolTokenizer
from tasks.lists.operations import OPERATIONS

NAMES = sorted(path.stem for path in (Path(conf.__file__).parent / "task").glob("*.yaml"))
WAITING_LINES = [name for name in NAMES if name.startswith("waiting_line")]


def test_every_operation_has_a_config() -> None:
    """An operation that exists in code only."""
    assert {f"list_{op}" for op in OPERATIONS} <= set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("list_")])
def test_list_task_fits_its_canvas(name: str) -> None:
    """A default length whose answer does not fit the default canvas, or ids that repeat."""
    task = build_task(compose([f"task={name}", "task.samples=40"]))
    samples = task.instances()
    assert task.name == name and len({sample.id for sample in samples}) == 40
    assert task.max_target_tokens(SymbolTokenizer()) <= task.gen_length
    assert all(task.score(s, " ".join([*next(s.instance.answers()), "<eos>"])).correct for s in samples)


@pytest.mark.parametrize("name", WAITING_LINES)
def test_waiting_line_is_whole(name: str) -> None:
    """Default lengths that leave out rows of the published set."""
    task = build_task(compose([f"task={name}", "task.operation=remove_random"]))
    assert task.name == f"{name}_remove_random"
    assert len(task.instances()) == 100


@pytest.mark.parametrize("setting", ["task.samples=many", "task.lengths=[a]", "task.seed=1.5"])
def test_wrong_types_name_key_and_value(setting: str) -> None:
    """A text that reaches a comparison with numbers and ends in a TypeError."""
    value = setting.partition("=")[2].strip("[]")
    with pytest.raises(ConfigError, match=rf"^{setting.partition('=')[0]}.*={value}: "):
        build_task(compose([setting]))
