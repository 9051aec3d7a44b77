"""FreeDave around every decoder on every list task with the trained models."""

import pytest

from harness.config.catalogue import names, read
from tests.methods.test_freedave import DRAFTED, WRAPPED, plain
from tests.methods.trained import decode_task

TASKS = [name for name in names("task") if name.startswith("list_")]
MODELS = {"masked_diffusion": "tiny_mdm", "block_diffusion": "tiny_block"}
CASES = [(kind, name) for name in WRAPPED for kind in MODELS if kind in read("method", name)["models"]]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "method"), CASES)
def test_no_answer_of_a_trained_model_changes(kind: str, method: str):
    """Guards the headline where tokens mean something, histories and revisions included."""
    block = ["method.block_length=8"] if "block_length" in read("method", method) else []
    shared = [f"model={MODELS[kind]}", f"method={method}", *block, "gen_length=16", "device.dtype=float64"]
    for task in TASKS:
        base, drafted = (decode_task(task, *shared, *extra, samples=4) for extra in ([], DRAFTED))
        assert plain(drafted.generations) == plain(base.generations), task
        assert sum(c.nfe for c in drafted.counts) <= sum(c.nfe for c in base.counts), task
