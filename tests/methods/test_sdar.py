"""SDAR's denoising of block after block."""

import pytest
import torch

from harness.config.build import build_method, build_task, load_model
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Prediction
from harness.runs.decode_batch import decode_batch
from harness.runs.measure import Measure, Measurement
from methods.diffusion.blocks import AbsoluteBlocks
from methods.diffusion.fast_dllm_v2 import SubBlocks
from methods.diffusion.sdar import Denoise, DenoisingSteps, DrawnScore, Remasking
from tests.caches.decoding import LENGTH, PROMPTS, Made, random_model, run
from tests.methods.closed_form import PROFILE, candidates, chosen
from tests.methods.test_fast_dllm_v2 import with_blocks

K, G = 8, LENGTH


def sdar(*overrides: str, **kwargs) -> Made:
    """Decode random weights with blocks of 8, stop tokens or not."""
    return run("method=sdar", "method/finish=full", *overrides, model=random_model("block_diffusion"), **kwargs)


@pytest.mark.parametrize(
    ("scores", "quota", "threshold", "expected"),
    [
        ([0.95, 0.90, 0.50], 1, 0.9, [0]),
        ([0.90, 0.40, 0.80], 2, 0.85, [0, 2]),
        ([0.90, 0.95, 0.99], 2, 0.85, [0, 1, 2]),
        (PROFILE, 1, 0.9, [0, 2, 5, 11]),
    ],
)
def test_sure_positions_close_where_they_are_enough(
    scores: list[float], quota: int, threshold: float, expected: list[int]
):
    """Guards the published cases: strictly surer than the threshold, else the quota."""
    assert chosen(Denoise(threshold=threshold), scores, quota=quota) == expected


def test_the_other_orders_close_the_quota():
    """Guards the surest, and the leftmost masks however unsure."""
    assert chosen(Denoise(remasking=Remasking.low_confidence_static), [0.2, 0.9, 0.99], quota=1) == [2]
    made, open_BL, canvas = candidates([0.2, 0.9, 0.99, 0.8])
    open_BL[0, 1] = False
    selector = Denoise(remasking=Remasking.sequential)
    assert selector(made, open_BL, torch.tensor([2]), canvas).tolist() == [[True, False, True, False]]


def test_steps_share_a_whole_block_and_no_decided_position():
    """Guards split(8, 3) = 3, 3, 2 and the number of masks, which a block with prompt tokens has less of."""
    _, _, canvas = candidates([0.5] * 5)
    canvas.open_window(torch.tensor([True]), torch.ones(1, 5, dtype=torch.bool))
    schedule, quotas = DenoisingSteps(block_length=8, denoising_steps=3), []
    for place in (0, 1, 2):
        quotas.append(int(schedule.quota(canvas)))
        canvas.commit(canvas.place_BL == place, torch.zeros_like(canvas.tokens_BL))
        canvas.tick(torch.tensor([True]))
    assert quotas == [3, 3, 2]
    canvas.commit(canvas.place_BL < 4, torch.zeros_like(canvas.tokens_BL))
    assert int(schedule.quota(canvas)) == 1


def test_the_confidence_is_that_of_the_drawn_distribution():
    """Guards the order of the filters, temperature before them, and greedy decoding, which filters nothing."""
    _, _, canvas = candidates([0.5])
    p = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    prediction = Prediction(
        logits_NV=p.log(), places=Places.of(torch.tensor([0]), torch.tensor([0]), (1, 1)),
        spec=random_model("block_diffusion").spec,
    )  # fmt: skip

    def confidence(**knobs: float) -> tuple[int, float]:
        made = DrawnScore(**knobs)(prediction, canvas)  # type: ignore[arg-type]
        return int(made.tokens_BL), float(made.confidence_BL)

    assert confidence(top_k=2) == (0, pytest.approx(0.4))
    # Of the three best, 4/9 and 3/9 are before 1/2 and 8/9: top p, which is last, sees 4/9 + 3/9 > 0.5.
    token, value = confidence(temperature=1.0, top_k=3, top_p=0.5)
    assert value == pytest.approx([4 / 7, 3 / 7][token])
    token, value = confidence(temperature=0.5, top_k=2)
    assert value == pytest.approx([16 / 25, 9 / 25][token])


@pytest.mark.parametrize("window", [AbsoluteBlocks(length=4), SubBlocks(length=4)])
def test_what_is_moved_behind_a_block_waits_for_the_next(window: AbsoluteBlocks | SubBlocks):
    """Guards blocks of the model, which no insertion moves: the block is full, and the next one opens behind it."""
    canvas = with_blocks(Canvas.from_prompts([[2, 2]], gen_length=5, mask_id=11, pad_id=0, seeds=[0]), inherits=False)
    window.update(canvas)
    canvas.insert(torch.tensor([3]), torch.tensor([2]))
    seen = []
    while bool(canvas.undecided_BL.any()):
        window.update(canvas)
        seen.append(canvas.open_BL[0].nonzero().squeeze(1).tolist())
        canvas.commit(canvas.open_BL, torch.zeros_like(canvas.tokens_BL))
    assert seen == [[2, 3], [4, 5, 6, 7], [8]]


@pytest.mark.parametrize("prompt_length", [3, 8, 10])
def test_calls_and_queries_are_the_closed_form(prompt_length: int):
    """Guards absolute blocks, one prefill, one call to store each block but the last, one block per call."""
    made = sdar("method.threshold=1.1", prompts=[[2] * prompt_length])
    counts, length = made.counts[0], prompt_length + G
    blocks = range(prompt_length // K, -(-length // K))
    sizes = {b: min(K, length - b * K) for b in blocks}
    masks = {b: min((b + 1) * K, length) - max(b * K, prompt_length) for b in blocks}
    assert counts.nfe_prefill == (prompt_length >= K)
    assert counts.nfe_cache == len(blocks) - 1
    assert counts.nfe == G + len(blocks) - 1
    assert (
        counts.query_tokens == sum(sizes[b] * masks[b] for b in blocks) + K * (len(blocks) - 1) + counts.prefill_tokens
    )
    assert counts.prefill_tokens == prompt_length // K * K


@pytest.mark.parametrize("knobs", [(), ("method.remasking=sequential", "method.denoising_steps=3")])
def test_storing_blocks_changes_nothing(knobs: tuple[str, ...]):
    """Guards exact reuse, ragged prompts included."""
    assert sdar(*knobs).decided == sdar(*knobs, "method/cache=none").decided


def test_one_token_per_step_at_the_conservative_end():
    """Guards the fallback of the dynamic rule, and one call per block at the other end."""
    static = sdar("method.remasking=low_confidence_static")
    assert sdar("method.threshold=1").decided == static.decided
    assert [c.nfe - c.nfe_cache for c in static.counts] == [G] * len(PROMPTS)
    blocks = [-(-(len(p) + G) // K) - len(p) // K for p in PROMPTS]
    assert [c.nfe - c.nfe_cache for c in sdar("method.threshold=0").counts] == blocks


def test_a_stop_token_ends_the_answer_with_its_block():
    """Guards the trained model: short answers take one block, and everything behind it is filled."""
    cfg = compose(["model=tiny_block", "task=list_reverse", "task.samples=8", "task.lengths=[4]", "method=sdar"])
    loaded, samples = load_model(cfg), build_task(cfg).instances()
    made = decode_batch(
        loaded.model,
        build_method(cfg),
        [loaded.tokenizer.encode(str(sample.prompt)) for sample in samples],
        seeds=range(8),
        gen_length=32,
        measure=Measure(name=Measurement.COUNTS),
    )
    stop = loaded.model.spec.stop_ids[0]
    for one, counts in zip(made.generations, made.counts, strict=True):
        assert counts.nfe_cache <= 1
        assert set(one.tokens[16:]) == {stop}
        assert one.tokens_generated <= 16
