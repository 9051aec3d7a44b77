"""Which calls compute everything: with every cache, wherever windows and ends move, and only where the next one opens.

What is expected is worked out from tokens: a window is another one where nothing that was open before is open now.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import evaluate, take_step
from harness.engine.diffusion.method import DecodeFully, DiffusionMethod
from harness.engine.diffusion.policies import Finish, Window
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.policy import REGISTRY
from harness.engine.shared.records import Ledger
from methods.diffusion.adablock import Adaptive
from methods.diffusion.ass import AscendingBlocks
from methods.diffusion.blocks import AbsoluteBlocks, Blocks
from methods.diffusion.daedal import CanvasGrowth, LeadingBlock
from methods.diffusion.dsb import Sliding
from methods.diffusion.fast_dllm_v2 import ModelBlocks, StopToken, SubBlocks
from methods.diffusion.finishes import AllEnd, BlockEos, PredictEos, PrefixEos
from methods.diffusion.multi_block import Pipeline
from methods.diffusion.saber import GrowingBlocks
from methods.diffusion.slowfast import ExploreAndFill
from tests.caches.decoding import Positions, method_of, random_model
from tests.caches.test_every_cache import KEEP_NOTHING

G, BLOCK = 12, 8
PROMPT = [2, 30, 76, 4, 9]
ENDS = tuple(range(20, 50))
WINDOWS: dict[str, Window] = {
    "blocks": Blocks(length=4),
    "absolute_blocks": AbsoluteBlocks(length=4),
    "adaptive": Adaptive(length=4, gen_length=G, theta_d=0.0, frac=0.5, delimiters=tuple(range(128))),
    "ascending": AscendingBlocks(gen_length=G, block_num=2),
    "growing_blocks": GrowingBlocks(length=4),
    "leading_block": LeadingBlock(length=4),
    "pipeline": Pipeline(length=4),
    "slowfast": ExploreAndFill(length=6, k_explore=2),
    "sliding": Sliding(length=4, max_block=4),
    "sub_blocks": SubBlocks(length=4),
}
OPENED_ONCE = {"pipeline", "slowfast", "sliding"}
FROM_THE_ROWS_START = {"absolute_blocks", "sub_blocks"}
FINISHES: dict[str, Finish] = {
    "full": DecodeFully(),
    "all_end": AllEnd(),
    "block_eos": BlockEos(),
    "canvas_growth": CanvasGrowth(Lmax=20, low=0.03, grow=2, eos_init=0.0, eos_grow=2.0, W=2),
    "predict_eos": PredictEos(confidence=0.1),
    "prefix_eos": PrefixEos(),
    "stop_token": StopToken(),
}
KNOBS = {
    "block_causal": (), "d2cache": ("k=2",), "dkv_decode": ("R=3",), "dkv_greedy": ("R=3",), "dkv_pd": ("R=3",),
    "dkv_prefill": (), "dllm_cache": ("Kp=4", "Kr=2", "rho=0"), "dsb": ("K=5", "w=1"), "dual": (),
    "elastic": ("beta=3", "gam=0"), "layer_reuse": ("every=3",), "prefix": (), "recap": ("pre_full=2", "r=1"),
    "sub_block": (),
}  # fmt: skip


def test_nothing_is_left_out():
    """Guards against a policy that nobody walks through here."""
    named = {slot: {name for group, name in REGISTRY if group == f"method/{slot}"} for slot in ("window", "finish")}
    assert named == {"window": {*WINDOWS}, "finish": {*FINISHES}}
    assert {name for group, name in REGISTRY if group == "method/cache"} == {*KEEP_NOTHING, *KNOBS}


class Call(NamedTuple):
    """A call of one row: positions, and tokens by position; `since` counts the calls of the window before it."""

    tokens: dict[int, int]
    undecided: set[int]
    window: set[int]
    read: set[int]
    computed: set[int]
    whole: bool
    moved: bool
    since: int

    @property
    def response(self) -> set[int]:
        return {p for p in self.tokens if p >= len(PROMPT)}

    def changed(self, stored: dict[int, int]) -> set[int]:
        """Return positions that hold another token than was stored, or of which nothing is."""
        return {p for p, token in self.tokens.items() if stored.get(p) != token}


def positions(marked_BL: torch.Tensor) -> set[int]:
    """Return the marked positions of the first row."""
    return set(marked_BL[0].nonzero().squeeze(1).tolist())


def calls_of(method: DiffusionMethod, model: LanguageModel, *, once: bool) -> list[Call]:
    """Decode one row and return its calls."""
    watched, ledger, made = Positions(model, []), Ledger(), []
    assert model.spec.mask_id is not None
    canvas = Canvas.from_prompts(
        [PROMPT], gen_length=G, mask_id=model.spec.mask_id, pad_id=0, stop_ids=ENDS, seeds=[0],
    )  # fmt: skip
    method.preparation(model, canvas)
    method.window.update(canvas)
    opened: list[set[int]] = [set()]
    layout = since = 0
    while bool(canvas.undecided_BL.any()) or bool(canvas.held_B.any()):
        before, watched.computed, records = canvas.copy(), [], len(ledger.records)
        undecided = positions(canvas.undecided_BL)
        since = 0 if not (opened[-1] & undecided or (once and made)) else since + 1
        opened.append(positions(canvas.open_BL))
        prediction = evaluate(watched, method, canvas, ledger)
        work = sum(int(record.layer_tokens_B.sum()) for record in ledger.records[records:])
        length = int(canvas.length_B)
        made.append(
            Call(
                tokens=dict(enumerate(before.tokens_BL[0, :length].tolist())),
                undecided=undecided,
                window=positions(before.window_BL),
                read=positions(prediction.read_BL),
                computed={p for one in watched.computed for p in one},
                whole=work >= length * model.spec.layers,
                moved=int(before.layout_B) != layout,
                since=since,
            )
        )
        layout = int(before.layout_B)
        # What the step closed some of: a policy may have fixed it after the prediction.
        look = [lambda seen, _, __: opened.append(positions(seen.open_BL))]
        canvas = take_step(method, canvas, prediction, observers=look)
    return made


def span(some: set[int]) -> set[int]:
    """Return everything from the first to the last."""
    return set(range(min(some), max(some) + 1)) if some else set()


def check_fast_dllm(calls: list[Call], behind: bool) -> None:
    """All where a window opens or something outside has changed, else the window (`behind`: to the end)."""
    stored: dict[int, int] = {}
    for call in calls:
        active = {p for p in call.tokens if p >= min(call.window)} if behind else span(call.window)
        stored = {} if call.moved else stored
        full = call.since == 0 or bool(call.changed(stored) - active)
        assert call.computed == (set(call.tokens) if full else active | call.read)
        stored |= {p: call.tokens[p] for p in call.computed}


def check_delayed(calls: list[Call], refreshed: Callable[[Call], set[int]]) -> None:
    """Masks and what has changed, and in some calls more."""
    stored: dict[int, int] = {}
    for call in calls:
        stored = {} if call.moved else stored
        assert call.computed == call.undecided | call.changed(stored) | call.read | refreshed(call)
        stored |= {p: call.tokens[p] for p in call.computed}


def due(call: Call) -> bool:
    """Return whether dKV's interval of 3 asks for a full call."""
    return call.since <= 1 or call.since % 3 == 0


def check_whole(calls: list[Call], full: Callable[[int, Call], bool]) -> None:
    """The calls named compute all, and no other does."""
    assert [call.whole for call in calls] == [full(index, call) or call.moved for index, call in enumerate(calls)]


def check_recap(calls: list[Call]) -> None:
    """The first two calls of a window are full; from then on every second."""
    expected: list[bool] = []
    for call in calls:
        light = not call.moved and call.since > 2 and expected[-1]
        expected.append(not light)
    assert [call.whole for call in calls] == expected


def check_sliding_cache(calls: list[Call]) -> None:
    """All where 5 tokens have been decided since, or something outside of [s - 1, e) has changed."""
    stored: dict[int, int] = {}
    decided = first = None
    for call in calls:
        now, at = len(call.response - call.undecided), min(call.undecided)
        active = {p for p in call.tokens if at - max(1, at - (at if first is None else first)) <= p <= max(call.window)}
        stored = {} if call.moved else stored
        full = (decided is not None and now - decided >= 5) or bool(call.changed(stored) - active)
        assert call.computed == (set(call.tokens) if full else active | call.read)
        decided, first = now if full else decided, at
        stored |= {p: call.tokens[p] for p in call.computed}


def check_blocks(calls: list[Call]) -> None:
    """Blocks before the first that has changed are stored for good; only what is read of them is computed."""
    stored: dict[int, int] = {}
    for call in calls:
        first = min(call.changed(stored) | call.undecided) // BLOCK
        assert {p // BLOCK for p in call.computed - call.read} <= set(range(first, 9))
        stored |= {p: call.tokens[p] for p in call.computed}


def check_sub_blocks(calls: list[Call], *, from_start: bool) -> None:
    """The part of 4 alone where its window is open, else all from the first block on that is not as it should be."""
    stored: dict[int, int] = {}
    stale = 0
    for call in calls:
        part = {p for p in call.tokens if p // 4 in {w // 4 for w in call.window}} if from_start else call.window
        last = max(call.read) // BLOCK
        wrong = {p for p in call.changed(stored) | (set(stored) - set(call.tokens)) if p // BLOCK <= last}
        alone = wrong | call.read <= part and {p // BLOCK for p in part} == {last}
        if call.since > 0 and alone and stale >= last:
            assert call.computed == part
            stale = last
        else:
            first = min({p // BLOCK for p in wrong} | {stale})
            assert {p for p in call.tokens if first <= p // BLOCK <= last} <= call.computed
            stale = max(first, last + 1)
        stored = {p: token for p, token in stored.items() if p in call.tokens}
        stored |= {p: call.tokens[p] for p in call.computed}


CHECKS: dict[str, Callable[[list[Call]], None]] = {
    "prefix": lambda calls: check_fast_dllm(calls, behind=True),
    "dual": lambda calls: check_fast_dllm(calls, behind=False),
    "dkv_decode": lambda calls: check_delayed(calls, lambda call: set(call.tokens) if due(call) else set()),
    "dkv_pd": lambda calls: check_delayed(calls, lambda call: call.response if due(call) else set()),
    "dkv_prefill": lambda calls: check_delayed(calls, lambda call: call.response),
    "dkv_greedy": lambda calls: check_whole(calls, lambda _, call: call.since % 3 == 0),
    "layer_reuse": lambda calls: check_whole(calls, lambda _, call: due(call)),
    "dllm_cache": lambda calls: check_whole(calls, lambda index, _: index % 4 == 0),
    "d2cache": lambda calls: check_whole(calls, lambda index, _: index == 0),
    "elastic": lambda calls: check_whole(calls, lambda index, _: index == 0),
    "recap": check_recap,
    "dsb": check_sliding_cache,
    "block_causal": check_blocks,
}


@cache
def model_for(cached: str, window: str) -> LanguageModel:
    """Return small random weights that the cache and the window suit."""
    blocks = window == "sub_blocks" or cached in ("block_causal", "sub_block")
    return random_model("block_diffusion" if blocks else "masked_diffusion", layers=2)


def made_of(cached: str, window: str, finish: str) -> DiffusionMethod:
    """Return one token per step, with these parts; raises ValueError where they do not go together."""
    drawn = ("method=llada", "method.remasking=random", "method.steps=16")
    base = drawn if cached == "dkv_greedy" else ("method=threshold", "method.threshold=1.1")
    knobs = [f"method.cache.{knob}" for knob in KNOBS[cached]]
    made = method_of(*base, "method.block_length=4", f"method/cache={cached}", *knobs)
    prepared = {"preparation": ModelBlocks()} if window == "sub_blocks" else {}
    return replace(made, window=WINDOWS[window], finish=FINISHES[finish], **prepared)


def check(cached: str, window: str, finish: str) -> None:
    """Decode with these parts and check every call."""
    calls = calls_of(made_of(cached, window, finish), model_for(cached, window), once=window in OPENED_ONCE)
    if cached == "sub_block":
        check_sub_blocks(calls, from_start=window in FROM_THE_ROWS_START)
    else:
        CHECKS[cached](calls)


# These leave out positions, which such windows and ends want to read.
NARROWING = {"dkv_greedy", "recap", "elastic", "d2cache"}
READING = {"adaptive", "predict_eos", "canvas_growth"}


def goes(cached: str, window: str, finish: str) -> bool:
    """Return whether the cache takes this window and this end."""
    return cached not in NARROWING or not READING & {window, finish}


TOGETHER = [(one, window, finish) for one in KNOBS for window in WINDOWS for finish in FINISHES]
# Every window with one end, and every end with the windows that are opened again and moved.
SHORT = [one for one in TOGETHER if one[2] == "full" or (one[1] == "leading_block" and one[2] != "full")]


def walk(one: tuple[str, str, str]) -> None:
    """Check a combination, or that it is refused where the cache leaves out what is read."""
    if goes(*one):
        check(*one)
    else:
        with pytest.raises(ValueError, match="does not predict every position that"):
            made_of(*one)


@pytest.mark.parametrize("one", SHORT, ids="-".join)
def test_full_calls_are_those_of_the_next_window(one: tuple[str, str, str]):
    """Guards answers: what is kept of a window that only moved or grew must be used, and no longer than it is right."""
    walk(one)


@pytest.mark.slow
@pytest.mark.parametrize("one", [one for one in TOGETHER if one not in SHORT], ids="-".join)
def test_all_that_go_together(one: tuple[str, str, str]):
    """Guards the same for every window with every end."""
    walk(one)
