"""The threshold of `adadec`: the published arithmetic, a regression that is recovered, and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

from harness.commands.train_adadec import learn, threshold
from harness.errors import DataError
from tests.conftest import RunDecbench

RELEASED = [
    (-4.2212, 1.8414, 0.05, 1.133754),
    (-4.1760, 1.6511, 0.05, 1.100469),
    (-2.6312, 1.7419, 0.15, 1.321288),
    (-4.6257, 1.1879, 0.16, 0.615292),
    (-4.5056, 1.5559, 0.16, 0.713369),
]


@pytest.mark.parametrize(("w", "b", "p", "theta"), RELEASED)
def test_the_released_thresholds_follow_from_the_released_regressions(w: float, b: float, p: float, theta: float):
    """Guards the sign and the side of the cut; w and b are printed with four decimals."""
    assert threshold(w, b, p) == pytest.approx(theta, abs=1e-4)


def test_a_law_is_recovered():
    """Guards the balance of the classes, which moves b and not w, and the cut that undoes it."""
    rng = np.random.default_rng(0)
    entropy_N = rng.exponential(0.7, 60_000)
    first_N = rng.random(60_000) < 1 / (1 + np.exp(-(3.0 - 2.5 * entropy_N)))
    learned = learn(entropy_N, np.where(first_N, 1, 2))
    assert learned.w == pytest.approx(-2.5, abs=0.15)
    assert learned.b < 3.0
    # The best cut of the whole is where both are equally likely.
    assert learned.theta == pytest.approx(3.0 / 2.5, abs=0.1)
    assert learned.rank_1 == pytest.approx(first_N.mean())


def test_tokens_that_tell_nothing_are_refused():
    """Guards a regression of one class."""
    with pytest.raises(DataError, match="all or none are the first choice"):
        learn(np.ones(10), np.ones(10))


def test_the_command_learns_from_lists_and_from_rows(call_decbench: RunDecbench, tmp_path: Path):
    """Guards both ways in, and what is written."""
    out = tmp_path / "learned.json"
    process = call_decbench("train", "adadec", "tokens=3000", f"out={out}")
    assert process.returncode == 0, process.stderr
    told = json.loads(out.read_text())
    assert told["tokens"] >= 3000 and 0.3 < told["theta"] < 2 and f"method.theta={told['theta']:.6f}" in process.stdout
    rows = tmp_path / "rows.jsonl"
    prompt = "<bos> copy <none> <none> <arg> A B C <pad> <pad> <pad> <pad> <pad> <pad> <pad> <sep>"
    answers = ("A B C <eos>", "C A B <eos>")
    rows.write_text("".join(json.dumps({"prompt": prompt, "answer": one}) + "\n" for one in 20 * answers))
    process = call_decbench("train", "adadec", f"data={rows}", "tokens=100")
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model=tiny_mdm"], "model=tiny_mdm: is masked_diffusion; choose a causal model"),
        (["token=5"], "train adadec token=5: no such option; did you mean tokens"),
        (["tokens=none"], "tokens=none: must be a whole number of at least 1"),
        (["data=nowhere.jsonl"], "data=nowhere.jsonl: cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words: list[str], told: str, call_decbench: RunDecbench):
    """Guards the line that names key, value and what would do."""
    process = call_decbench("train", "adadec", *words)
    assert process.returncode == 2 and told in process.stderr and len(process.stderr.splitlines()) == 1
