"""Rows that begin while others go on, for every method and cache: none is changed by it, on float64."""

from dataclasses import replace

import pytest
import torch

from harness.config.build import build_method
from harness.config.catalogue import read
from harness.config.composition import compose
from harness.config.matrix import Combination, caches
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.records import Counts, Ledger
from tests.caches.decoding import LENGTH, PROMPTS, random_model
from tests.methods.test_every_step import METHODS, allowed, method_for

Made = tuple[list[Generation], list[Counts]]
# What is tried in each run of the suite: of every decoder on one kind of model, and of some with every cache of masked
# diffusion, test_every_method.py has rows begin beside others, too.
QUICK = {"threshold", "sdar"}
KINDS = [
    pytest.param(name, kind, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in METHODS
    for kind in read("method", name)["models"]
]
# Neither in order of length nor of equal ones.
SHUFFLED = [PROMPTS[at] for at in (2, 0, 5, 1, 3)]


def laid_out(model: LanguageModel, prompts, first: int) -> Canvas:
    """Return rows of some prompts, the samples from `first` on."""
    spec = model.spec
    assert spec.mask_id is not None
    canvas = Canvas.from_prompts(
        prompts, gen_length=LENGTH, mask_id=spec.mask_id, pad_id=spec.pad_id, stop_ids=spec.stop_ids,
        seeds=range(first, first + len(prompts)),
    )  # fmt: skip
    return replace(canvas, sample_B=canvas.sample_B + first)


def arriving(method: DiffusionMethod, model: LanguageModel, prompts, rows: int) -> Made:
    """Decode prompts, so many rows at once: the next begins as one ends."""
    ledger, begun, told = Ledger(), rows, list[Generation]()

    def arrivals(going_on: int, width: int) -> Canvas | None:
        nonlocal begun
        first, begun = begun, min(len(prompts), begun + rows - going_on)
        return laid_out(model, prompts[first:begun], first) if begun > first else None

    with torch.inference_mode():
        made = decode(
            model, method, laid_out(model, prompts[:rows], 0), ledger, arrivals=arrivals, on_finished=told.extend
        )
    assert sorted(told, key=lambda one: one.sample) == made
    assert max(len(record.sample_B.unique()) for record in ledger.records) <= rows
    return made, ledger.counts(range(len(prompts)))


def alone(method: DiffusionMethod, model: LanguageModel, prompts) -> Made:
    """Decode prompts one by one."""
    made, ledger = [], Ledger()
    with torch.inference_mode():
        for at, prompt in enumerate(prompts):
            made += decode(model, method, laid_out(model, [prompt], at), ledger)
    return made, ledger.counts(range(len(prompts)))


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_row_that_begins_beside_others_is_decoded_as_if_alone(name: str, kind: str):
    """Guards memories of policies, which a new row has none of; widths, clocks, budgets; and what a row is charged."""
    method = method_for(name, kind)
    model = random_model(kind)
    assert arriving(method, model, SHUFFLED, 2) == alone(method, model, SHUFFLED)


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(
            one, marks=[] if one.row == "sdar" else [pytest.mark.slow], id=f"{one.row}-{one.column}-{one.kind.value}"
        )
        for one in allowed()
    ],
)
def test_caches_keep_rows_apart_that_begin_at_different_times(one: Combination):
    """Guards keys and values that grow by rows, and what is remembered of them."""
    kind = one.kind.value
    method = replace(method_for(one.row, kind), cache=caches()[one.column])
    model = random_model(kind)
    assert arriving(method, model, SHUFFLED, 2) == alone(method, model, SHUFFLED)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("masked_diffusion", "method/verifier=freedave method/cache=dual method.verifier.drafts=tree"),
        ("block_diffusion", "method/verifier=freedave method/cache=block_causal method.verifier.drafts=tree"),
        ("block_diffusion", "method/verifier=freedave method/cache=block_causal method.verifier.reach=eager"),
        ("masked_diffusion", "method/verifier=lopa"),
    ],
)
def test_drafts_of_some_rows_are_evaluated_beside_others_that_begin(kind: str, words: str):
    """Guards drafts that share what is stored of their row, those beyond the window, and branches."""
    model = random_model(kind)
    base = ["model=tiny_block" if kind == "block_diffusion" else "model=random_mdm", "method=threshold"]
    method = build_method(compose([*base, "method.threshold=0.5", "method.block_length=8", f"gen_length={LENGTH}",
                                   *words.split()]))  # fmt: skip
    assert isinstance(method, DiffusionMethod) and method.drafts
    assert arriving(method, model, SHUFFLED, 2) == alone(method, model, SHUFFLED)
