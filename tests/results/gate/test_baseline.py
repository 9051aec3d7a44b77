"""The baseline's file: what is written is what is read, and what no longer differs stays as it was."""

from pathlib import Path

import pytest

from harness.errors import DataError
from harness.results.gate.baseline import Acceptance, Baseline, accepted_anew, read_baseline, write_baseline
from harness.results.schemas import COUNTERS
from tests.results.gate.factory import STEPS, answer, setting

WHY = Acceptance(reason="a new tie rule", day="2026-01-02", commit="abc", changed=1)
COUNTS = dict.fromkeys(COUNTERS, 0) | {"nfe": 2, "nfe_cache": None}


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path):
    """Guards what is left out: zero margins, verdicts and unknown counts are something, and stay apart."""
    answers = (
        answer("s0", counters=COUNTS, correct=False, margin=0.0, steps=()),
        answer("s1", counters=COUNTS, correct=None, margin=None, tokens=(), decided_at=(), drawn=True, repetition=1),
        answer("s2", counters=COUNTS, steps=(STEPS[0], STEPS[1].__class__(accepted=0, computed=0, margin=0.0))),
    )
    made = Baseline(accepted=(WHY,), settings={"a": setting("a", *answers), "b": setting("b", answer(counters=COUNTS))})
    write_baseline(tmp_path / "deep" / "base.jsonl", made)
    assert read_baseline(tmp_path / "deep" / "base.jsonl") == made
    text = (tmp_path / "deep" / "base.jsonl").read_text()
    assert '"nfe":2' in text and '"nfe_draft"' not in text, "counts of nothing are not written"


def test_accepting_keeps_what_did_not_change_and_every_reason():
    """Guards the diff that a review reads: margins that wander do not rewrite settings."""
    old = Baseline(accepted=(WHY,), settings={"a": setting("a"), "b": setting("b"), "gone": setting("gone")})
    wandered = setting("a", answer(margin=0.31))
    other = setting("b", answer(tokens=(6, 7)))
    new = accepted_anew(old, [wandered, other, setting("c")], ["b", "c", "gone"], WHY)
    assert new.settings == {"a": setting("a"), "b": other, "c": setting("c")}
    assert new.accepted == (WHY, WHY)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "line 1"),
        ("{}\n", "line 1"),
        ('{"format":1,"accepted":[]}\n{"of":"nobody"}\n', "line 2"),
        ('{"format":1,"accepted":[]}\n<<<<<<< mine\n', "line 2"),
        ('{"format":2,"accepted":[]}\n', "format"),
    ],
)
def test_what_is_no_baseline_is_refused_with_its_line(content: str, told: str, tmp_path: Path):
    """Guards against a file that a merge broke passing for an empty baseline."""
    file = tmp_path / "base.jsonl"
    file.write_text(content)
    with pytest.raises(DataError, match=told):
        read_baseline(file)


def test_a_missing_baseline_says_how_to_make_one(tmp_path: Path):
    """Guards the first call."""
    with pytest.raises(DataError, match="--accept"):
        read_baseline(tmp_path / "none.jsonl")


def test_a_folder_is_no_baseline(tmp_path: Path):
    """Guards against advice that cannot help: nothing can be accepted into a folder."""
    with pytest.raises(DataError, match="is a folder; name a file"):
        read_baseline(tmp_path)
