"""Decoding list tasks with the trained embedded models."""

from harness.config.build import build_method, build_task, load_model
from harness.config.composition import compose
from harness.runs.decode_batch import Decoded, decode_batch
from harness.runs.measure import Measure, Measurement


def decode_task(task: str, *overrides: str, samples: int = 6, seed: int = 0) -> Decoded:
    """Decode the first samples of a task in one batch with the method that `overrides` describe."""
    cfg = compose([f"task={task}", f"task.samples={samples}", *overrides])
    loaded = load_model(cfg)
    prompts = [loaded.tokenizer.encode(str(sample.prompt)) for sample in build_task(cfg).instances()]
    return decode_batch(
        loaded.model,
        build_method(cfg),
        prompts,
        seeds=[seed + row for row in range(len(prompts))],
        gen_length=cfg.gen_length,
        measure=Measure(name=Measurement.COUNTS),
    )
