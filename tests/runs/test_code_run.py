"""A run of a programming task from the config to its rows, with a model that always gives one answer."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from harness.config import build
from harness.config.composition import compose
from harness.results.store import Store
from harness.runs.runner import run
from tasks.code.sandbox import Isolation, Tier, tiers

ANSWER = "    raise KeyError('no idea')"


class OneAnswer:
    """A tokenizer that reads every prompt as three tokens and every output as one text."""

    def encode(self, text: str) -> list[int]:
        """Return ids of the embedded vocabulary."""
        return [2, 60, 4]

    def encode_prompt(self, prompt: object) -> list[int]:
        """Return the same ids."""
        return self.encode("")

    def decode(self, ids: Iterable[int]) -> str:
        """Return the answer."""
        return ANSWER


@pytest.mark.parametrize("unsafe", [False, True])
def test_verdicts_and_isolation_are_stored(results_dir: Path, monkeypatch: pytest.MonkeyPatch, unsafe: bool) -> None:
    """Guards the stored rows: how each program ended, and how well it was shut in when it did."""
    load = build.load_model
    monkeypatch.setattr(
        build, "load_model", lambda cfg, checkpoints: dataclasses.replace(load(cfg), tokenizer=OneAnswer())
    )
    settings = ["task.template=lm_eval", "task.turns=text", "task.samples=3", "gen_length=8", "method.steps=1"]
    if unsafe:
        settings.append("sandbox=unsafe")
        monkeypatch.setattr(tiers, "isolation", lambda: Isolation(tier=Tier.LIMITS, missing={}))
    cfg = compose(["model=random_mdm", "task=humaneval", f"results_dir={results_dir}", *settings])
    cfg.model.tokenizer = "text"
    record = run(cfg)
    rows = Store(root=results_dir).read("samples").to_pylist()
    assert (record.status, record.row["accuracy"], len(rows)) == ("ok", 0.0, 3)
    assert {row["detail"] for row in rows} == {"error:KeyError: 'no idea'"}
    assert all(row["extraction"] == "body" and row["extracted"].endswith(ANSWER) for row in rows)
    grading = json.loads(record.row["provenance"])["grading"]
    assert (grading["sandbox_tier"] == 4) == unsafe
    assert Store(root=results_dir).read("runs")["sandbox_tier"].to_pylist() == [grading["sandbox_tier"]]
    assert [("sandbox=unsafe" in warning) for warning in record.row["warnings"]] == [True] * unsafe
