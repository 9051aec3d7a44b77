"""Drafts of windows that move before they are complete: what the host is told of them is what there is to read."""

import pytest

from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.diffusion.method import DiffusionMethod
from tests.caches.decoding import PROMPTS, decode_with, random_model
from tests.methods.test_arrivals import alone

MOVING = {
    "dsb": "method=dsb method.block_length=4 method.max_block=6",
    "dsb, its whole response": "method=dsb method.block_length=8",
    "multi_block": "method=multi_block method.block_length=4",
}


@pytest.mark.parametrize("threshold", ["null", "0.3"])
@pytest.mark.parametrize("reach", ["within", "across"])
@pytest.mark.parametrize("name", MOVING)
def test_rows_are_verified_beside_others_as_if_alone(name: str, reach: str, threshold: str) -> None:
    """Guards the number of open positions that a draft is said to have, by which logits are given to positions."""
    words = [*MOVING[name].split(), "method/verifier=freedave", f"method.verifier.reach={reach}"]
    words += [f"method.verifier.threshold={threshold}", "model=random_mdm", "gen_length=16"]
    method = build_method(compose(words))
    assert isinstance(method, DiffusionMethod)
    together = decode_with(method, random_model(), PROMPTS[:4], 16)
    made, counts = alone(method, random_model(), PROMPTS[:4])
    assert (together.generations, together.counts) == (made, counts)


@pytest.mark.parametrize("words", MOVING.values())
def test_no_draft_changes_an_answer(words: str) -> None:
    """Guards the exact verifier, whatever moves."""
    made = []
    for more in ([], ["method/verifier=freedave", "method.verifier.reach=within"]):
        method = build_method(compose([*words.split(), "model=random_mdm", "gen_length=16", *more]))
        assert isinstance(method, DiffusionMethod)
        made.append(decode_with(method, random_model(), PROMPTS, 16).decided)
    assert made[0] == made[1]
