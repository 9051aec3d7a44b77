"""A stored result says what ran: what changes a number changes a name, and nothing else does."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.config import source_digest
from harness.config.composition import compose
from harness.config.identity import describe, plain_number
from harness.config.job import Job, resolve
from harness.config.remembered import remembered
from harness.config.source_digest import Code, Reader, differences
from harness.config.stored import restored
from harness.errors import ConfigError
from harness.models.embedded import CHECKPOINTS

SMALL = ("model=random_mdm", "task.samples=2")


def job(*overrides: str) -> Job:
    """Resolve a small run."""
    return resolve(compose([*SMALL, *overrides]))


def settings(*changes: Sequence[str]) -> int:
    """Count the settings among variants of one run."""
    return len({job(*change).setting_id for change in changes})


@pytest.mark.parametrize(
    "changes",
    [
        [[], ["method.temperature=0"], ["method.temperature=0.0"], ["method.temperature=-0.0"]],
        [[], ["batch_size=2"], ["device.threads=1"], ["measure=timed"], ["tracker=wandb"], ["name=mine"]],
        [[], ["results_dir=elsewhere"], ["resume=false"], ["on_error=record"], ["figure=areas"]],
        [["method=threshold", "method.threshold=0.8"], ["method=threshold", "method.selector.threshold=0.8"]],
        [[], ["method/verifier=none", "method/cache=none"]],
    ],
)
def test_what_was_asked_has_one_name(changes: list[list[str]]):
    """Guards comparisons across machines and spellings: equal questions, equal names."""
    assert settings(*changes) == 1


@pytest.mark.parametrize(
    "change",
    ["method.steps=8", "seed=1", "gen_length=8", "device.dtype=float64", "method.score_dtype=float64", "task.samples=3",
     "method.temperature=0.5", "method/cache=prefix", "model.loader.seed=1", "task=list_sort"],
)  # fmt: skip
def test_another_question_has_another_name(change: str):
    """Guards against taking one setting's results for another's."""
    assert settings([], [change]) == 2


def test_null_in_place_of_a_default_is_another_question():
    """Guards against one knob's null being taken for its default, which left a row out of a table."""
    names = {job("method=prophet", *change).setting_id for change in ([], ["method.answer_length=null"])}
    assert len(names) == 2


def test_a_new_knob_at_its_default_keeps_every_name():
    """Guards stored results against a policy that learns something new."""
    from dataclasses import field, make_dataclass

    before = make_dataclass("Rule", [("threshold", float)], frozen=True)
    after = make_dataclass("Rule", [("threshold", float), ("patience", int, field(default=0))], frozen=True)
    assert describe(before(0.5)) == describe(after(0.5)) != describe(after(0.5, patience=1))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_has_no_name(number: float):
    """Guards names against values that differ from themselves."""
    with pytest.raises(ConfigError, match="finite"):
        plain_number(number)


def test_a_checkpoint_is_told_by_its_content(tmp_path: Path):
    """Guards resume after a change of a checkpoint's config, and after it was moved."""
    for name in ("a", "b"):
        shutil.copytree(CHECKPOINTS / "tiny_mdm", tmp_path / name)

    def named(name: str) -> str:
        return resolve(compose(["model=tiny_mdm", f"model.path={tmp_path / name}"])).setting_id

    assert named("a") == named("b") == resolve(compose(["model=tiny_mdm"])).setting_id
    config = tmp_path / "b" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rope_theta": 5000.0}))
    assert named("a") != named("b")


def test_a_draft_is_told_as_its_target_is(tmp_path: Path):
    """Guards resume after a change of the model that drafts, weights and config, and after it was moved."""
    shutil.copytree(CHECKPOINTS / "tiny_ar_draft", tmp_path / "a")
    shutil.copytree(CHECKPOINTS / "tiny_ar_draft", tmp_path / "b")
    speculative = ["model=tiny_ar", "model@draft=tiny_ar_draft", "method=speculative", "task.samples=2"]

    def made(*change: str) -> Job:
        return resolve(compose([*speculative, *change]))

    assert made(f"draft.path={tmp_path / 'a'}").run_id == made(f"draft.path={tmp_path / 'b'}").run_id == made().run_id
    assert made("model@draft=tiny_ar").setting_id != made().setting_id != made("model=tiny_ar_draft").setting_id
    config = tmp_path / "b" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rope_theta": 5000.0}))
    changed = made(f"draft.path={tmp_path / 'b'}")
    assert changed.setting_id != made().setting_id and changed.run_id != made().run_id
    assert changed.decoding.checkpoints.keys() == changed.plain["models"].keys() == {"target", "draft"}
    assert restored(made().plain).draft.name == "tiny_ar_draft"
    assert job().plain["models"].keys() == {"target"} and restored(job().plain).draft is None


def test_data_is_told_by_its_content(tmp_path: Path):
    """Guards resume after a row of the user's data was edited, and after the file was moved."""
    row = {"items": ["a", "b", "c"], "word": None, "index": None, "count": None}
    files = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    for file in files:
        file.write_text(json.dumps(row))
    assert settings(*([f"task.data={file}"] for file in files)) == 1
    files[1].write_text(json.dumps(row | {"items": ["a", "c", "b"]}))
    assert settings(*([f"task.data={file}"] for file in files)) == 2


@pytest.mark.parametrize("change", ["batch_size=2", "measure=traced", "measure=timed"])
def test_what_may_change_the_numbers_changes_the_run(change: str):
    """Guards resume: a run of other rows beside each other, or measured otherwise, is run anew."""
    assert job().run_id != job(change).run_id
    assert job("measure=timed", "device.threads=1").run_id != job("measure=timed", "device.threads=2").run_id


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a package of a user's: a rule, which imports a helper inside a function, and a neighbour."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "rule.py").write_text("def rule():\n    from mine import helper\n    return helper.VALUE\n")
    (folder / "helper.py").write_text('"""Doc."""\nVALUE = 1\n')
    (folder / "neighbour.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source_digest._file_of.cache_clear()
    return folder


@pytest.mark.parametrize(
    ("file", "content", "changed"),
    [
        ("helper.py", '"""Doc."""\nVALUE = 2\n', ["mine.helper"]),
        ("helper.py", '"""Other words."""\n# and a comment\nVALUE = 1\n', []),
        ("rule.py", "def rule():\n    from mine import helper\n    return helper.VALUE + 1\n", ["mine.rule"]),
        ("neighbour.py", "VALUE = 2\n", []),
        ("rule.py", "def rule():\n    from mine import neighbour\n    return 1\n",
         ["mine.helper", "mine.neighbour", "mine.rule"]),
    ],
)  # fmt: skip
def test_code_is_what_the_classes_reach(package: Path, file: str, content: str, changed: list[str]):
    """Guards against stale results after an edit two imports away, and against runs anew after a new comment."""
    before = Reader().code_of(["mine.rule"])
    (package / file).write_text(content)
    after = Reader().code_of(["mine.rule"])
    assert differences(before, after) == changed


def test_a_method_does_not_reach_the_others():
    """Guards stored results of one method against edits of another's file, of trackers and of commands."""
    modules = job("method=threshold").code.modules
    assert {"methods.diffusion.fast_dllm", "harness.engine.diffusion.loop", "harness.results.metrics"} <= modules.keys()
    assert {"tasks.lists.task", "harness.models.transformer", "harness.engine.shared.prediction"} <= modules.keys()
    unrelated = (
        "methods.diffusion.prophet",
        "tasks.math",
        "harness.runs.trackers",
        "harness.commands",
        "harness.config",
    )
    assert not [name for name in modules if name.startswith(unrelated)]


def test_versions_of_reached_packages_count():
    """Guards against results of another torch; packages that nothing reaches do not matter."""
    code = job().code
    assert {"python", "torch", "numpy"} <= code.versions.keys() and "wandb" not in code.versions
    other = Code(modules=code.modules, versions={**code.versions, "torch": "1.0"})
    assert differences(other, code) == [f"torch 1.0 -> {code.versions['torch']}"]


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards start-up time beside large checkpoints, and against remembering too long."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file, asked = tmp_path / "file", []

    def work_out(path: Path) -> str:
        asked.append(path)
        return path.read_text()

    file.write_text("one")
    assert [remembered("kind", file, work_out) for _ in range(2)] == ["one", "one"] and len(asked) == 1
    file.write_text("other")
    assert remembered("kind", file, work_out) == "other"


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards read-only homes."""
    (tmp_path / "file").write_text("one")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert remembered("other kind", tmp_path / "file", Path.read_text) == "one"
