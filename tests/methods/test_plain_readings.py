"""Decoders whose results on the embedded model surprise, against a second reading of their rules on that model."""

from collections.abc import Callable
from functools import partial

import pytest

from harness.config.build import build_task, load_model
from harness.config.composition import compose
from tests.methods.plain_readings import Answer, adablock, by_quota, ccd, credit, prophet
from tests.methods.trained import decode_task

TASKS = ["list_sort", "list_shuffle", "list_insert_random", "list_repeat_list"]
EXACT = "device.dtype=float64"  # of the model; scores stay float32. Rows of a batch are then as good as alone.
ASCENDING = [1, 2, 4, 9]


def believed(step: int) -> float:
    """Return the factor of LLaDA and ASS."""
    return 1.0


def rising(step: int, *, least: float, steps: int) -> float:
    """Return EOSER's factor."""
    return least + (1 - least) * step / (steps - 1)


def doubling(step: int) -> float:
    """Return the factor of EOSER with four ascending steps."""
    return 0.01 + 0.99 * (2 ** (step + 1) - 1) / 2**4


READINGS: dict[str, Callable[[Answer], None]] = {
    "llada steps=8": partial(by_quota, quotas=[2] * 8, ends=[16] * 8, gamma=believed),
    "eoser": partial(by_quota, quotas=[1] * 16, ends=[16] * 16, gamma=partial(rising, least=0.4, steps=16)),
    "eoser steps=4 gamma_min=0.01": partial(
        by_quota, quotas=[4] * 4, ends=[16] * 4, gamma=partial(rising, least=0.01, steps=4)
    ),
    "ass": partial(by_quota, quotas=ASCENDING, ends=[16] * 4, gamma=believed),
    "ass block_num=2": partial(by_quota, quotas=ASCENDING, ends=[7, 7, 7, 16], gamma=believed),
    "eoser_ass": partial(by_quota, quotas=ASCENDING, ends=[16] * 4, gamma=doubling),
    "eoser_ass block_num=4": partial(by_quota, quotas=ASCENDING, ends=[1, 3, 7, 16], gamma=doubling),
    "prophet": partial(prophet, region=5, thresholds=(7.5, 5.0, 2.5)),
    "prophet answer_length=null gap_thresholds=[20,15,12]": partial(
        prophet, region=None, thresholds=(20.0, 15.0, 12.0)
    ),
    "adablock": partial(adablock, length=32, look_ahead=4),
    "adablock block_length=8": partial(adablock, length=8, look_ahead=4),
    "adablock block_length=8 frac=1": partial(adablock, length=8, look_ahead=16),
    "credit": partial(credit, tau=0.9),
    "credit tau=0.6": partial(credit, tau=0.6),
    # Entropies of sure places differ by less than float32 tells apart.
    "ccd score_dtype=float64": partial(ccd, top_v=4, d=2, whole=False),
    "ccd mode=ccd_ds d=1 score_dtype=float64": partial(ccd, top_v=4, d=1, whole=True),
}


@pytest.mark.parametrize("setting", READINGS)
def test_answers_steps_and_calls_are_those_of_the_plain_reading(setting: str):
    """Guards against an error in a method that passes for a property of it."""
    method, *knobs = setting.split()
    for task in TASKS:
        overrides = [f"method={method}", *[f"method.{knob}" for knob in knobs]]
        made = decode_task(task, *overrides, EXACT, samples=2)
        cfg = compose([f"task={task}", "task.samples=2", EXACT])
        loaded = load_model(cfg)
        for sample, ours, counts in zip(build_task(cfg).instances(), made.generations, made.counts, strict=True):
            mask_id = loaded.model.spec.mask_id
            assert mask_id is not None
            answer = Answer(loaded.model, loaded.tokenizer.encode(str(sample.prompt)), [mask_id] * 16)
            READINGS[setting](answer)
            theirs = (tuple(answer.tokens), tuple(answer.decided_at), answer.calls)
            assert (ours.tokens, ours.decided_at, counts.nfe) == theirs, (task, sample.id)
