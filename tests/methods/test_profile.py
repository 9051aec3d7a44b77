"""The published selector vectors, through the whole of each method: config, scorer, selector and the loop's guard.

The profile: position i of 12 gives c_i to token i mod 5, and the rest to the four others in equal shares.
"""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.model import ForwardRequest, ModelKind, ModelSpec
from harness.engine.shared.prediction import Candidates
from harness.engine.shared.records import Ledger
from tests.methods.closed_form import PROFILE

MASK = 5
ENTROPIES = [0.2678, 0.7777, 0.0699, 1.0268, 1.2275, 0.3897, 1.3863, 0.8838, 0.5333, 1.5813, 0.9335, 0.1763]
VECTORS = {
    "threshold threshold=0.9": "0 2 5 11",
    "factor factor=0.5": "0 2 5 11",
    "factor factor=0.75": "0 2 5 8 11",
    "factor factor=1.0": "0 2 5 8 11",
    "factor factor=1.5": "0 1 2 5 8 11",
    "frechet delta=0.5": "0 2 5 8 11",
    "frechet delta=0.25": "0 1 2 5 8 11",
    "frechet delta=0": "0 1 2 5 7 8 11",
    "eb gamma=0": "2",
    "eb gamma=0.1": "2 11",
    "eb gamma=0.5": "0 2 11",
    "eb gamma=1": "0 2 5 8 11",
    "eb gamma=2": "0 1 2 5 8 11",
    "entropy_threshold theta=0.2": "2 11",
    "entropy_threshold theta=0.5": "0 2 5 11",
    "entropy_threshold theta=1": "0 1 2 5 7 8 10 11",
    "local_leap tau=0.9 tau_rel=0.75 r=1": "0 1 2 5 11",
    "local_leap tau=0.9 tau_rel=0.75 r=2": "0 1 2 5 7 11",
    "local_leap tau=0.9 tau_rel=0.75 r=4": "0 1 2 5 7 8 11",
}
WITH_3_AND_7_DECIDED = {
    "hierarchy tau=0.98 low=0.4": "2 5 11",
    "hierarchy tau=0.98 low=0.95": "2 11",
    "hierarchy tau=0.98 low=0.995 variant=fast_v2": "2",
}


@dataclass(frozen=True)
class Profile:
    """A model that predicts the profile, whatever is decided."""

    spec = ModelSpec(
        name="profile", kind=ModelKind.MASKED_DIFFUSION, vocab_size=6, max_length=64, layers=1, stop_ids=(0,), pad_id=0,
        mask_id=MASK,
    )  # fmt: skip
    device = torch.device("cpu")

    def new_store(self, rows: int, slots: int):
        raise TypeError("nothing to store")

    def forward(self, request: ForwardRequest) -> Tensor:
        c = torch.tensor(PROFILE, dtype=torch.float64)
        p_TV = ((1 - c) / 4)[:, None].repeat(1, 6)
        p_TV[torch.arange(12), torch.arange(12) % 5] = c
        p_TV[:, MASK] = 0.5
        return p_TV.log()[request.select_N]


def first_step(setting: str, given: dict[int, int]) -> tuple[list[int], Candidates]:
    """Return what the first step of a method commits, and its candidates."""
    name, *knobs = setting.split()
    overrides = [f"method={name}", *(f"method.{knob}" for knob in knobs), "gen_length=12", "method.score_dtype=float64"]
    method, seen = build_method(compose(overrides)), []
    assert isinstance(method, DiffusionMethod)
    canvas = Canvas.from_prompts([[]], gen_length=12, mask_id=MASK, pad_id=0, seeds=[0], constraints=[given])
    (made,) = decode(Profile(), method, canvas, Ledger(), [lambda before, candidates, after: seen.append(candidates)])
    assert [token for place, token in enumerate(made.tokens) if place not in given] == [
        place % 5 for place in range(12) if place not in given
    ]
    return [place for place in range(12) if made.decided_at[place] == 0], seen[0]


@pytest.mark.parametrize("setting", VECTORS)
def test_the_first_step_commits_the_vector(setting: str):
    """Guards what no test of a selector alone sees: the scorer's numbers and signs, and what a knob is wired to."""
    assert first_step(setting, {})[0] == list(map(int, VECTORS[setting].split()))


@pytest.mark.parametrize("setting", WITH_3_AND_7_DECIDED)
def test_decided_positions_part_the_row(setting: str):
    """Guards the same for rules that look at runs of masks."""
    assert first_step(setting, {3: 3, 7: 2})[0] == list(map(int, WITH_3_AND_7_DECIDED[setting].split()))


def test_entropies_are_the_published_ones():
    """Guards nats, and the mask token, which takes no part."""
    for setting in ("entropy_threshold theta=0", "llada remasking=entropy"):
        score_BL = first_step(setting, {})[1].score_BL
        assert (-score_BL[0]).tolist() == pytest.approx(ENTROPIES, abs=5e-5)
    assert [-sum(p * math.log(p) for p in (c, *[(1 - c) / 4] * 4)) for c in PROFILE] == pytest.approx(
        ENTROPIES, abs=5e-5
    )
