"""Prompts of stored samples, made again from the config of their run."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.composition import compose
from harness.config.job import resolve
from harness.models import hub
from harness.models.text import TextTokenizer, read
from harness.models.tokenizer import SymbolTokenizer
from harness.results.canonical import prompt_digest
from harness.runs.asked import Asked
from tasks.task import Sample
from tests.models.public.miniature import KINDS, write_tokenizer

WORDS = ("model=random_mdm", "method=threshold", "task=list_sort", "task.samples=2")


@pytest.fixture(scope="module")
def stored() -> tuple[dict[str, Any], list[Sample]]:
    """Return the row of a run as far as it is looked at, and the samples of its task."""
    job = resolve(compose(WORDS))
    return {"run_id": "r", "config": json.dumps(job.plain)}, [*job.task.instances()]


ENCODE = SymbolTokenizer().encode_prompt


def rows(samples: list[Sample], encode: Any = ENCODE) -> list[dict[str, Any]]:
    """Return samples as they are stored."""
    return [{"sample_id": one.id, "prompt_sha256": prompt_digest(encode(one.prompt))} for one in samples]


def test_what_was_asked_is_told(stored: Any):
    """Guards the text of prompts, by name of sample."""
    run, samples = stored
    assert Asked()(run, rows(samples)) == {one.id: (("", one.prompt),) for one in samples}


def test_another_prompt_than_that_of_the_run_is_never_shown(stored: Any, caplog: pytest.LogCaptureFixture):
    """Guards runs whose task has changed since: what differs is left out, and said once."""
    run, samples = stored
    asked, (first, second) = Asked(), rows(samples)
    for _ in range(2):
        assert [*asked(run, [first, second | {"prompt_sha256": first["prompt_sha256"]}])] == [first["sample_id"]]
    assert [one.getMessage() for one in caplog.records] == [
        "r: its prompts are not shown: the task asks something else today"
    ]


@pytest.mark.parametrize(
    ("config", "reason"),
    [("{}", "its config is not stored"), ("gone", "model=gone: how it reads a prompt is not known here")],
)
def test_what_cannot_be_told_says_why(stored: Any, caplog: pytest.LogCaptureFixture, config: str, reason: str):
    """Guards runs from elsewhere."""
    run, samples = stored
    if config == "gone":
        config = json.dumps(json.loads(run["config"]) | {"models": {"target": {"name": "gone"}}})
    assert Asked()(run | {"config": config}, rows(samples)) == {}
    assert caplog.records[0].getMessage().endswith(reason)


@pytest.mark.parametrize("add_bos", [False, True])
def test_special_tokens_around_a_text_do_not_matter(
    stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add_bos: bool
):
    """Guards published models, whose loaders put a begin token before a text, or none."""
    write_tokenizer(tmp_path, KINDS["llada"])
    monkeypatch.setattr(hub, "find_of", lambda model: tmp_path)
    run, samples = stored
    config = json.dumps(json.loads(run["config"]) | {"models": {"target": {"name": "llada", "hub_id": "some/where"}}})
    reader = TextTokenizer(read(tmp_path), where="here", stop_ids=(), add_bos=add_bos)
    found = Asked()(run | {"config": config}, rows(samples, reader.encode_prompt))
    assert found == {one.id: (("", one.prompt),) for one in samples}
