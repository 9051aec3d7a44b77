"""FreeDave around every decoder on every list task with the trained models."""

import pytest

from harness.runs.build import build_method, build_task, load_model
from harness.runs.catalogue import names, read
from harness.runs.config import compose
from harness.runs.decode_batch import decode_batch
from harness.runs.measure import Measure, Measurement
from tests.methods.test_freedave import DRAFTED, WRAPPED, plain

TASKS = [name for name in names("task") if name.startswith("list_")]
MODELS = {"masked_diffusion": "tiny_mdm", "block_diffusion": "tiny_block"}
CASES = [(kind, name) for name in WRAPPED for kind in MODELS if kind in read("method", name)["models"]]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "method"), CASES)
def test_no_answer_of_a_trained_model_changes(kind: str, method: str):
    """Guards the headline where tokens mean something, histories and revisions included."""
    block = ["method.block_length=8"] if "block_length" in read("method", method) else []
    for task in TASKS:
        shared = [
            f"task={task}",
            "task.samples=4",
            "gen_length=16",
            f"model={MODELS[kind]}",
            f"method={method}",
            *block,
        ]
        made = []
        for extra in ([], DRAFTED):
            cfg = compose([*shared, *extra, "device.dtype=float64"])
            loaded = load_model(cfg)
            prompts = [loaded.tokenizer.encode(str(sample.prompt)) for sample in build_task(cfg).instances()]
            measure = Measure(name=Measurement.COUNTS)
            made.append(
                decode_batch(loaded.model, build_method(cfg), prompts, seeds=range(4), gen_length=16, measure=measure)
            )
        base, drafted = made
        assert plain(drafted.generations) == plain(base.generations), task
        assert sum(c.nfe for c in drafted.counts) <= sum(c.nfe for c in base.counts), task
