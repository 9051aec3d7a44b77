"""Decoding list tasks with the trained embedded models."""

from collections.abc import Sequence

from omegaconf import DictConfig

from harness.config.build import build_method, build_task, load_model
from harness.config.composition import compose
from harness.runs.decode_batch import Decoded, decode_batch
from harness.runs.measure import Measure, Measurement


def _composed(task: str, overrides: Sequence[str], samples: int) -> DictConfig:
    return compose([f"task={task}", f"task.samples={samples}", *overrides])


def prompts_of(task: str, *overrides: str, samples: int = 6) -> list[list[int]]:
    """Return the prompts of the first samples of a task."""
    cfg = _composed(task, overrides, samples)
    return [load_model(cfg).tokenizer.encode(str(sample.prompt)) for sample in build_task(cfg).instances()]


def decode_task(task: str, *overrides: str, samples: int = 6, seed: int = 0) -> Decoded:
    """Decode the first samples of a task in one batch with the method that `overrides` describe."""
    cfg = _composed(task, overrides, samples)
    prompts = prompts_of(task, *overrides, samples=samples)
    return decode_batch(
        load_model(cfg).model,
        build_method(cfg),
        prompts,
        seeds=[seed + row for row in range(len(prompts))],
        gen_length=cfg.gen_length,
        measure=Measure(name=Measurement.COUNTS),
    )
