"""EasySpec: greedy answers, the plain draft at N = 1, and calibration that leaves nothing inexact behind."""

import pytest
import torch

from harness.engine.autoregressive.drafting import Round
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.model import ForwardRequest, Models, Part
from harness.engine.shared.records import Ledger
from harness.errors import FieldError
from harness.models.key_values import KeyValueStore
from methods.autoregressive.easyspec import LayersAbreast
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.speculative import COMPUTED, STORE, ModelDrafter
from tests.engine.causal import PROMPTS, run, with_drafts
from tests.methods.self_drafts import LAYERS, answers, drafting, rounds_of, same_for_every_batch, target

MODELS = Models(target(), target())


def abreast(n: int, length: int = 4, *, calibrate: bool = True) -> AutoregressiveMethod:
    """Return the method."""
    return with_drafts(Greedy(), LayersAbreast(N=n, calibrate=calibrate), length)


@pytest.mark.parametrize("n", [1, 3, 9])
@pytest.mark.parametrize("calibrate", [True, False])
def test_no_grouping_changes_a_token(n: int, calibrate: bool) -> None:
    """Guards greedy verification of drafts that are inexact, and rows of a batch."""
    assert same_for_every_batch(MODELS, abreast(n, calibrate=calibrate)) == answers()


def test_one_at_a_time_is_the_plain_draft() -> None:
    """Guards the end of the range: rounds and counts of `speculative`."""
    seen = []
    for method in (abreast(1), with_drafts(Greedy(), ModelDrafter())):
        ledger = Ledger()
        made = run(MODELS, method, PROMPTS, ledger=ledger)
        seen.append(
            [(one.tokens, one.decided_at, count) for one, count in zip(made, ledger.counts(range(8)), strict=True)]
        )
    assert seen[0] == seen[1]


@pytest.mark.parametrize("calibrate", [True, False])
def test_calibration_leaves_exact_keys_and_values(calibrate: bool) -> None:
    """Guards the draft's store: below what is kept nothing is inexact, but without calibration."""
    wrong: list[bool] = []

    def check(completed: Round) -> None:
        store, computed_B = completed.after.stores.get(STORE), completed.after.memory.get(COMPUTED)
        if store is None:
            return
        assert isinstance(store, KeyValueStore) and isinstance(computed_B, torch.Tensor)
        for row, end in enumerate(torch.minimum(computed_B, completed.after.length_B - 1).tolist()):
            fresh, tokens_BT = target().new_store(1, store.slots), completed.after.tokens_BL[row : row + 1, :end]
            target().forward(ForwardRequest(tokens_BT, positions_BT=torch.arange(end)[None], kv=fresh, end=end))
            pairs = zip([*store.keys, *store.values], [*fresh.keys, *fresh.values], strict=True)
            wrong.append(any(not torch.allclose(kept[row, :end], again[0, :end], atol=1e-5) for kept, again in pairs))

    run(MODELS, abreast(3, calibrate=calibrate), PROMPTS, observers=[check])
    assert len(wrong) > 8 and any(wrong) != calibrate


def test_a_round_loads_what_the_plain_draft_would() -> None:
    """Guards the count of layers: g L_d + L, and one position more to calibrate."""
    rounds = rounds_of(MODELS, abreast(3, 3))[1:]
    assert [loads for _, _, loads in rounds] == [drafted * LAYERS + LAYERS for drafted, _, _ in rounds]
    ledger = Ledger()
    run(MODELS, abreast(3, 3), PROMPTS[1:2], 6, ledger=ledger)
    # The first call passes the whole text; later ones what has stood since, and the token behind it.
    assert [int(r.query_B) for r in drafting(ledger.records)[:3]] == [4, 1, 1]


@pytest.mark.parametrize(("layers", "n", "depth"), [(8, 1, 8.0), (8, 3, 6.0), (8, 9, 5.5), (30, 4, 19.5), (2, 4, 2.0)])
def test_the_critical_depth_is_that_of_stages(layers: int, n: int, depth: float) -> None:
    """Guards the closed form: (2 + ceil((L - 2) / N) + L) / 2."""
    assert Part(abreast=n).depth(layers) == depth


def test_no_group_is_refused() -> None:
    """Guards bad input, in one line."""
    with pytest.raises(FieldError, match="N=0: must be at least 1"):
        LayersAbreast(N=0)
