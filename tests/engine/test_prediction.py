"""Order, ties and the arithmetic of confidence."""

import math

import pytest
import torch

from harness.engine.shared.model import ModelKind, ModelSpec
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Prediction, ScoreDtype, least, log_probability, rank_descending, top

SPEC = ModelSpec(
    name="none", kind=ModelKind.MASKED_DIFFUSION, vocab_size=3, max_length=4, layers=1, stop_ids=(0,), pad_id=0,
    mask_id=2,
)  # fmt: skip


def prediction() -> Prediction:
    """Return logits of three positions of two rows, each all its own number."""
    return Prediction(
        logits_NV=torch.arange(3.0)[:, None].expand(3, 3),
        places=Places.of(torch.tensor([0, 1, 1]), torch.tensor([2, 0, 3]), (2, 4)),
        spec=SPEC,
    )


def picked(scores: list[float], open_: list[bool], count: int) -> list[int]:
    """Return the positions that `top` takes of one row."""
    taken_BL = top(torch.tensor([scores]), torch.tensor([open_]), torch.tensor([count]))
    return taken_BL[0].nonzero().flatten().tolist()


@pytest.mark.parametrize("length", [32, 64, 300])
def test_ties_go_to_the_lowest_position(length: int):
    """Guards against a sort that is not stable: `topk` answers differently at every length."""
    for count in (1, 2, length - 1):
        assert picked([0.5] * length, [True] * length, count) == list(range(count))
    assert rank_descending(torch.zeros(1, length))[0].tolist() == list(range(length))


def test_closed_positions_are_never_taken():
    """Guards the window against better positions outside of it, and against counts beyond what is open."""
    assert picked([0.9, 0.1, 0.8, 0.2], [False, True, False, True], 1) == [3]
    assert picked([0.9, 0.1, 0.8, 0.2], [False, True, False, True], 4) == [1, 3]
    assert picked([0.9, 0.1], [True, True], 0) == []


def test_an_open_position_without_score_comes_before_closed_ones():
    """Guards progress where every open score is -inf: closed positions must not use up the count."""
    nothing = -math.inf
    assert picked([0.9, nothing, 0.8, nothing], [False, True, False, True], 1) == [1]
    assert picked([nothing, nothing, nothing, 0.1], [False, True, True, True], 2) == [1, 3]


def test_every_row_has_its_own_count():
    """Guards against the largest or the mean count of the batch."""
    taken_BL = top(torch.zeros(3, 4), torch.ones(3, 4, dtype=torch.bool), torch.tensor([0, 1, 3]))
    assert taken_BL.sum(1).tolist() == [0, 1, 3]


def test_the_least_are_the_top_of_the_other_order():
    """Guards ties, closed positions and counts beyond what there is, and below nothing."""
    value_BL, among_BL = torch.tensor([[0.5, 0.1, 0.5, -0.2, 0.5]] * 4), torch.tensor([[True, False, True, True, True]])
    count_B = torch.tensor([-1, 2, 3, 9])
    found_BL = least(value_BL, among_BL, count_B)
    assert torch.equal(found_BL, top(-value_BL, among_BL, count_B))
    assert found_BL.long().tolist() == [[0, 0, 0, 0, 0], [1, 0, 0, 1, 0], [1, 0, 1, 1, 0], [1, 0, 1, 1, 1]]


def test_log_probability_is_that_of_the_softmax():
    """Guards the identity, also for tokens that are not the most probable, and for impossible ones."""
    logits_NV = torch.tensor([[1.0, 2.0, -math.inf, 0.5]], dtype=torch.float64).expand(4, 4)
    found_N = log_probability(logits_NV, torch.arange(4))
    torch.testing.assert_close(found_N, logits_NV[0].log_softmax(-1), rtol=1e-14, atol=0)


def test_log_probability_does_not_saturate():
    """Guards the order of confident positions in float32, where their probabilities are all exactly 1."""
    margins_N = torch.tensor([18.0, 20.0, 40.0, 80.0])
    logits_NV = torch.stack([margins_N, torch.zeros(4), torch.zeros(4)], 1)
    assert logits_NV.softmax(-1)[:, 0].tolist() == [1.0] * 4
    log_p_N = log_probability(logits_NV, torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(log_p_N, -2 * (-margins_N).exp(), rtol=1e-5, atol=0)
    assert log_p_N.argsort().tolist() == [0, 1, 2, 3]


def test_scatter_and_gather_are_inverse():
    """Guards the map between read positions and the canvas."""
    values_N = torch.tensor([5, 6, 7])
    values_BL = prediction().scatter(values_N, -1)
    assert values_BL.tolist() == [[-1, -1, 5, -1], [6, -1, -1, 7]]
    assert torch.equal(prediction().gather(values_BL), values_N)


def test_rows_of_a_prediction_follow_rows_of_a_canvas():
    """Guards logits against another row's positions when rows are dropped, reordered and repeated."""
    repeated = prediction().rows(torch.tensor([1, 0, 1]))
    assert repeated.shape == (3, 4)
    assert repeated.row_N.tolist() == [0, 0, 1, 2, 2]
    assert repeated.position_N.tolist() == [0, 3, 2, 0, 3]
    assert repeated.logits_NV[:, 0].tolist() == [1, 2, 0, 1, 2]


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float64])
def test_scores_are_computed_in_the_arithmetic_asked_for(given: torch.dtype):
    """Guards `model`, which must keep ties of low precision, and the two that must not."""
    logits = torch.zeros(1, dtype=given)
    found = {name: ScoreDtype[name].cast(logits).dtype for name in ("float32", "float64", "model")}
    assert found == {"float32": torch.float32, "float64": torch.float64, "model": given}


def test_unlikely_tokens_keep_their_log_probability():
    """Guards sampled tokens far below the best one, whose exponentials overflow in float32."""
    logits_NV = torch.tensor([[0.0, -100.0, -3.0]], dtype=torch.float32)
    found_N = log_probability(logits_NV, torch.tensor([1]))
    torch.testing.assert_close(found_N, torch.log_softmax(logits_NV.double(), -1)[:, 1].float())


def test_entropy_is_that_of_the_tokens_that_can_be_predicted():
    """Guards the column of the steps table: in nats, and not a number where nothing was read."""
    logits_NV = torch.tensor([[0.0, 0.0, 0.0, 0.0], [3.0, 3.0, -torch.inf, -torch.inf], [90.0, 0.0, 0.0, -torch.inf]])
    said = Prediction(
        logits_NV=logits_NV, places=Places.of(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1]), (2, 3)), spec=SPEC
    )
    nan = torch.nan
    expected_BL = torch.tensor([[1.3863, nan, 0.6931], [nan, 0.0, nan]])
    torch.testing.assert_close(said.entropy(), expected_BL, atol=1e-4, rtol=0, equal_nan=True)
