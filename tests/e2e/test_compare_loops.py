"""`scripts/compare_loops` on a stand-in for a public checkout: a loop of the same signature, in words of our own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "compare_loops"
LOOP = '''
import torch

@torch.no_grad()
def generate(model, prompt, steps, gen_length, block_length, mask_id):
    """One token per step, block after block: the surest of those that are masked."""
    rows, start = prompt.shape
    x = torch.cat([prompt, torch.full((rows, gen_length), mask_id)], 1)
    for _ in range(gen_length // block_length):
        for _ in range(block_length):
            p, best = model(x).logits.double().softmax(-1).max(-1)
            p[x != mask_id] = -1
            p[:, start + block_length :] = -1
            at = p.argmax(1)
            x[torch.arange(rows), at] = best[torch.arange(rows), at]
        start += block_length
    return x
'''


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder), "--loop", "llada", "--vocab", "512", "--rounds", "1", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_checkout_is_timed_beside_ours(tmp_path: Path) -> None:
    """Guards the comparison that releases are judged by: real loops, one model, equal tokens, a floor."""
    (tmp_path / "generate.py").write_text(LOOP)
    done = run(tmp_path)
    assert not done.returncode, done.stderr
    (found,) = json.loads(done.stdout.splitlines()[-1])["loops"]
    assert found["tokens_equal"] and found["calls"] == 32 and found["bar"] == 0.95
    assert 0 < found["floor"] < found["ours_over_theirs"] * 1.5


@pytest.mark.slow
def test_a_loop_that_decides_otherwise_does_not_pass(tmp_path: Path) -> None:
    """Guards ratios of loops that do not do the same."""
    (tmp_path / "generate.py").write_text(LOOP.replace("argmax(1)", "argmin(1)"))
    (found,) = json.loads(run(tmp_path).stdout.splitlines()[-1])["loops"]
    assert not found["tokens_equal"] and not found["passed"]


def test_a_folder_without_the_function_is_named(tmp_path: Path) -> None:
    """Guards against a traceback for a folder that was mistyped."""
    done = run(tmp_path / "nothing")
    assert done.returncode and "has no generate.generate that can be imported" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
