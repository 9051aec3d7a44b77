"""What may change on a canvas, and what never does."""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.generation import GIVEN
from harness.engine.shared.randomness import AHEAD, uniforms

MASK, PAD = 9, 0


def canvas(*prompts: list[int], **options) -> Canvas:
    """Lay out prompts with three masks behind each; the clocks stand at 5."""
    made = Canvas.from_prompts(prompts, gen_length=3, mask_id=MASK, pad_id=PAD, seeds=range(len(prompts)), **options)
    made.tick(torch.ones(len(prompts), dtype=torch.bool), 5)
    return made


def everywhere(on: Canvas) -> Tensor:
    """Mark every position, prompts and padding included."""
    return torch.ones_like(on.undecided_BL)


def filled(on: Canvas, token: int) -> Tensor:
    """Offer the same token at every position."""
    return torch.full_like(on.tokens_BL, token)


def test_rows_of_different_lengths_are_padded_on_the_right():
    """Guards positions: a prompt that moved with the batch would give another answer."""
    made = canvas([1, 2], [3], constraints=[{1: 7}, {}])
    assert made.tokens_BL.tolist() == [[1, 2, MASK, 7, MASK], [3, MASK, MASK, MASK, PAD]]
    assert made.undecided_BL.long().tolist() == [[0, 0, 1, 0, 1], [0, 1, 1, 1, 0]]
    assert made.place_BL.tolist() == [[-2, -1, 0, 1, 2], [-1, 0, 1, 2, 3]]
    assert made.response_BL.long().tolist() == [[0, 0, 1, 1, 1], [0, 1, 1, 1, 0]]


def test_commits_touch_undecided_positions_only():
    """Guards prompts, constraints, padding and earlier commits against a selector that marks everything."""
    made = canvas([1, 2], [3], constraints=[{1: 7}, {}])
    made.commit(everywhere(made), filled(made, 4))
    made.commit(everywhere(made), filled(made, 5))
    assert made.tokens_BL.tolist() == [[1, 2, 4, 7, 4], [3, 4, 4, 4, PAD]]
    assert made.decided_at_BL.tolist() == [[GIVEN, GIVEN, 5, GIVEN, 5], [GIVEN, 5, 5, 5, GIVEN]]
    assert made.generated_B.tolist() == [2, 3]


def test_remasking_forgets_when_a_position_was_decided():
    """Guards prompts and padding, and a count that would include positions that were masks already."""
    made = canvas([1, 2], [3])
    made.commit(made.place_BL < 2, filled(made, 4))
    made.tick(torch.tensor([True, True]))
    made.remask(everywhere(made))
    assert made.tokens_BL.tolist() == [[1, 2, MASK, MASK, MASK], [3, MASK, MASK, MASK, PAD]]
    assert bool((made.decided_at_BL == GIVEN).all())
    assert made.remasked_B.tolist() == [2, 2]
    assert made.generated_B.tolist() == [2, 2]


def test_a_token_that_no_call_has_seen_is_not_counted_as_remasked():
    """Guards the count of revocations against what a step commits and takes back in one go."""
    made = canvas([1, 2])
    made.commit(made.place_BL < 2, filled(made, 4))
    made.remask(made.place_BL < 1)
    assert (made.remasked_B.tolist(), made.generated_B.tolist()) == ([0], [2])
    assert made.undecided_BL[0, made.prompt_length_B[0]]


def test_rows_of_two_canvases_are_merged():
    """Guards rows that wait while others step: nothing of theirs may change, their width included."""
    earlier = canvas([1, 2], [3])
    later = earlier.copy()
    later.commit(everywhere(later), filled(later, 4))
    later.insert(torch.tensor([2, 1]), torch.tensor([1, 1]))
    later.memory["mine"] = torch.tensor([1, 1])
    earlier.memory["mine"] = torch.tensor([0, 0])
    made = later.where(torch.tensor([True, False]), earlier)
    assert made.tokens_BL.tolist() == [[1, 2, MASK, 4, 4, 4], [3, MASK, MASK, MASK, PAD, PAD]]
    assert made.length_B.tolist() == [6, 4]
    assert made.memory["mine"].tolist() == [1, 0]


def test_rows_that_remember_more_and_fewer_steps_stand_side_by_side():
    """Guards memories that grow with the steps, of which two states of a row's drafts have different numbers."""
    later, earlier = canvas([1], [2]), canvas([1], [2])
    later.memory["some.steps_BSL"], earlier.memory["some.steps_BSL"] = torch.ones(2, 3, 4), torch.full((2, 2, 4), 2)
    steps_BSL = later.where(torch.tensor([True, False]), earlier).memory["some.steps_BSL"]
    assert steps_BSL[:, :, 0].tolist() == [[1, 1, 1], [2, 2, 0]]


def test_edits_keep_the_step_of_the_commit():
    """Guards the order of commits against later corrections, and masks against being filled without a decision."""
    made = canvas([1, 2])
    made.commit(made.place_BL < 1, filled(made, 4))
    made.tick(torch.tensor([True]))
    made.edit(everywhere(made), filled(made, 5))
    assert made.tokens_BL.tolist() == [[1, 2, 5, MASK, MASK]]
    assert made.decided_at_BL.tolist() == [[GIVEN, GIVEN, 5, GIVEN, GIVEN]]
    assert made.generated_B.tolist() == [2]


def test_filling_counts_as_the_last_step_and_generates_nothing():
    """Guards commit steps after the clock has moved on, earlier commits, constraints and prompts."""
    made = canvas([1, 2], constraints=[{1: 7}])
    made.commit(made.place_BL == 0, filled(made, 4))
    made.tick(torch.tensor([True]), 2)
    made.fill(everywhere(made), 3)
    assert made.tokens_BL.tolist() == [[1, 2, 3, 7, 3]]
    assert made.decided_at_BL.tolist() == [[GIVEN, GIVEN, 5, GIVEN, 6]]
    assert not made.undecided_BL.any()
    assert made.generated_B.tolist() == [1]


def test_constraints_survive_remasking_and_edits():
    """Guards what the user has fixed: no reviser may reopen or change it."""
    made = canvas([1, 2], constraints=[{1: 7}])
    made.commit(everywhere(made), filled(made, 4))
    made.edit(everywhere(made), filled(made, 5))
    assert made.tokens_BL.tolist() == [[1, 2, 5, 7, 5]]
    made.remask(everywhere(made))
    assert made.tokens_BL.tolist() == [[1, 2, MASK, 7, MASK]]


def test_a_window_opens_for_the_rows_that_ask():
    """Guards the clock and the mask count of a block, which quotas are computed from."""
    made = canvas([1, 2], [3])
    made.open_window(torch.tensor([True, False]), made.place_BL < 2)
    assert made.open_BL.long().tolist() == [[0, 0, 1, 1, 0], [0] * 5]
    assert made.window_masks_B.tolist() == [2, 0]
    assert made.window_clock_B.tolist() == [0, 5]
    assert made.clock_B.tolist() == [5, 5]
    assert made.window_index_B.tolist() == [1, 0]


def test_rows_grow_and_are_cut_on_their_own():
    """Guards against masks left behind a cut, which would never be decided."""
    made = canvas([1, 2], [3])
    made.resize(torch.tensor([7, 2]))
    assert made.tokens_BL.tolist() == [[1, 2, *[MASK] * 5], [3, MASK, *[PAD] * 5]]
    assert made.undecided_BL.sum(1).tolist() == [5, 1]
    assert bool((made.undecided_BL <= made.response_BL).all())


def test_inserting_moves_what_is_behind():
    """Guards every field that goes by position: a token that moves without its step or window is another state."""
    made = canvas([1, 2], [3])
    made.commit(made.place_BL == 2, filled(made, 4))
    made.open_window(torch.tensor([True, True]), made.place_BL == 2)
    made.insert(torch.tensor([3, 0]), torch.tensor([2, 0]))
    assert made.tokens_BL.tolist() == [[1, 2, MASK, MASK, MASK, MASK, 4], [3, MASK, MASK, 4, PAD, PAD, PAD]]
    assert made.undecided_BL.sum(1).tolist() == [4, 2]
    assert made.decided_at_BL[0].tolist() == [GIVEN] * 6 + [5]
    assert made.window_BL[0].nonzero().flatten().tolist() == [6]
    assert made.length_B.tolist() == [7, 4]


def test_inserted_masks_join_the_window_of_the_position_they_push_aside():
    """Guards against membership by old place, which would open some of the inserted masks and not others."""
    made = canvas([1, 2])
    made.open_window(torch.tensor([True]), made.place_BL == 2)
    made.insert(torch.tensor([4]), torch.tensor([2]))
    assert made.open_BL[0].nonzero().flatten().tolist() == [4, 5, 6]


def test_what_is_remembered_moves_with_its_position():
    """Guards policies with a memory against a canvas that grows or is inserted into: nothing is known of new masks."""
    made = canvas([1, 2], [3])
    made.memory["mine.seen_BL"] = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]])
    made.memory["mine.steps_BSL"] = made.memory["mine.seen_BL"][:, None]
    made.memory["mine.by_place_BRV"] = torch.tensor([[3, 4, 5], [7, 8, 9]])[..., None]
    made.memory["mine.count_B"] = torch.tensor([1, 2])
    made.insert(torch.tensor([3, 2]), torch.tensor([2, 1]))
    assert made.memory["mine.seen_BL"].tolist() == [[1, 2, 3, 0, 0, 4, 5], [6, 7, 0, 8, 9, 0, 0]]
    assert made.memory["mine.steps_BSL"][:, 0].tolist() == made.memory["mine.seen_BL"].tolist()
    assert made.memory["mine.by_place_BRV"][..., 0].tolist() == [[3, 0, 0, 4, 5, 0], [7, 0, 8, 9, 0, 0]]
    made.resize(torch.tensor([9, 5]))
    assert made.memory["mine.seen_BL"].shape == made.tokens_BL.shape == (2, 9)
    assert made.memory["mine.count_B"].tolist() == [1, 2]


def test_rows_can_be_repeated_and_changed_apart():
    """Guards drafts against each other and against the canvas that they were made from."""
    made = canvas([1, 2], [3])
    made.memory["credit_BL"] = torch.tensor([[1.0], [2.0]])
    drafts = made.rows(torch.tensor([1, 1, 0]))
    drafts.tokens_BL[0] = 8
    drafts.memory["credit_BL"][0] = 8.0
    assert drafts.sample_B.tolist() == [1, 1, 0]
    assert drafts.tokens_BL[1].tolist() == made.tokens_BL[1].tolist() == [3, MASK, MASK, MASK, PAD]
    assert drafts.memory["credit_BL"].tolist() == [[8.0], [2.0], [1.0]]
    assert made.memory["credit_BL"].tolist() == [[1.0], [2.0]]


def test_a_copy_can_be_changed():
    """Guards `before` and `after` of a step against being one canvas."""
    made = canvas([1, 2])
    other = made.copy()
    other.commit(other.undecided_BL, torch.full_like(other.tokens_BL, 8))
    other.memory["seen_B"] = torch.ones(1)
    assert made.tokens_BL.tolist() == [[1, 2, MASK, MASK, MASK]]
    assert not made.memory


def test_rows_of_several_canvases_stand_one_behind_the_other():
    """Guards the pieces of a batch whose rows went different ways, of other widths and with a memory, too."""
    wide, narrow = canvas([1, 2], [3]), canvas([4])
    wide.memory["seen"], narrow.memory["seen"] = torch.ones(2, 5), torch.ones(1, 4)
    narrow.commit(everywhere(narrow), filled(narrow, 5))
    both = Canvas.cat([wide, narrow])
    assert both.tokens_BL.tolist() == [*wide.tokens_BL.tolist(), [4, 5, 5, 5, PAD]]
    assert both.decided_at_BL.tolist() == [*wide.decided_at_BL.tolist(), [GIVEN, 5, 5, 5, GIVEN]]
    assert both.memory["seen"].tolist() == [[1] * 5, [1] * 5, [1, 1, 1, 1, 0]]
    assert both.length_B.tolist() == [5, 4, 4]
    assert narrow.tokens_BL.shape == (1, 4)


def test_draws_follow_the_clock_of_each_row():
    """Guards numbers that are drawn for several steps at once: clocks part, jump, and pass the last of these steps."""
    made, one = canvas([1, 2], [3]), torch.tensor([True, False])
    ticks = [(None, 1), (one, 1), (None, 3), (~one, torch.tensor([0, AHEAD])), *[(None, 1)] * (AHEAD + 1)]
    for rows_B, steps in ticks:
        made.tick(rows_B, steps)
        drawn_BL = uniforms(made.seed_B, made.clock_B, "order", 7)
        assert torch.equal(made.uniforms("order"), drawn_BL[:, :5])
        assert torch.equal(made.rows(torch.tensor([1])).uniforms("order"), drawn_BL[1:, :5])
        assert torch.equal(made.widened(7).uniforms("order"), drawn_BL)


def test_what_a_call_has_seen_is_reopened_as_it_is_remasked():
    """Guards the shorter way of revisers that know what they take back."""
    made, same = canvas([1, 2]), canvas([1, 2])
    for each in (made, same):
        each.commit(each.place_BL < 2, filled(each, 4))
        each.tick(None)
    again_BL = made.place_BL == 1
    made.remask(again_BL)
    same.reopen(again_BL & same.committed_BL, torch.tensor([1]))
    for name in ("tokens_BL", "undecided_BL", "decided_at_BL", "remasked_B"):
        assert torch.equal(getattr(made, name), getattr(same, name))
