"""SlowFast: estimates, phases, and what fast calls compute."""

from statistics import mean, pstdev

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.model import ForwardRequest
from harness.engine.shared.prediction import Candidates
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError
from harness.models.embedded import EmbeddedModel
from methods.caches.cut_suffix import VISIBLE, CutSuffix
from methods.diffusion.slowfast import ExploreAndFill, SurePair
from tests.caches.decoding import LENGTH, PROMPTS, random_model, run, trained_model
from tests.engine.asking import asked
from tests.methods.closed_form import MASK_ID, candidates, chosen, replay
from tests.methods.test_saber import NOTHING
from tests.methods.trained import decode_task


def walk(window: ExploreAndFill, *steps: tuple[list[float], list[int]]) -> list[list[int]]:
    """Return the open places before each step of confidences and places that close, and after the last."""
    canvas = Canvas.from_prompts([[]], gen_length=8, mask_id=MASK_ID, pad_id=0, seeds=[0])
    window.update(canvas)
    seen = [canvas.place_BL[0, canvas.open_BL[0]].tolist()]
    for confidences, places in steps:
        confidence_BL = torch.tensor([confidences], dtype=torch.float64)
        made = Candidates(
            tokens_BL=torch.zeros_like(canvas.tokens_BL), score_BL=confidence_BL, confidence_BL=confidence_BL
        )
        window.before_commit(canvas, NOTHING, made)
        canvas.commit(torch.isin(canvas.place_BL, torch.tensor(places)), made.tokens_BL)
        canvas.tick(torch.tensor([True]))
        window.update(canvas)
        seen.append(canvas.place_BL[0, canvas.open_BL[0]].tolist())
    return seen


def test_only_the_first_window_is_a_next_one():
    """Guards caches: phases and estimates move a window, which is no reason to compute all anew."""
    canvas, window = (
        Canvas.from_prompts([[]], gen_length=8, mask_id=MASK_ID, pad_id=0, seeds=[0]),
        ExploreAndFill(length=4),
    )
    made = candidates([0.9] * 8)[0]
    seen = []
    for place in range(4):
        window.update(canvas)
        seen.append(int(canvas.window_index_B))
        window.before_commit(canvas, NOTHING, made)
        canvas.commit(canvas.place_BL == place, made.tokens_BL)
        canvas.tick(torch.tensor([True]))
    assert seen == [1, 1, 1, 1]


def test_exploring_finds_the_length_that_is_filled():
    """Guards the farthest reached position, the stable last estimate, and the next cycle behind it."""
    window = ExploreAndFill(length=8, k_explore=2)
    one, two = [0.9, 0.5, 0.5, 0.4, 0.1, 0.1, 0.1, 0.1], [0.9, 0.5, 0.5, 0.5, 0.4, 0.1, 0.1, 0.1]
    assert walk(window, (one, [0]), (two, [6]), (two, [1, 2, 3, 4])) == [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [1, 2, 3, 4, 5, 6, 7],
        [1, 2, 3, 4],
        [5, 7],
    ]


def test_estimates_that_differ_are_averaged():
    """Guards the mean, rounded down, where the standard deviation is not below the bound."""
    window = ExploreAndFill(length=8, k_explore=2)
    near, far = [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], [0.4, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1, 0.1]
    assert walk(window, (near, [7]), (far, [6]))[-1] == [0, 1]


def test_too_few_exploring_steps_for_a_window_of_estimates_count_by_their_mean():
    """Guards cycles that end before the estimates could have agreed: one estimate of 4 fills four positions."""
    far = [0.4, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1, 0.1]
    assert walk(ExploreAndFill(length=8, k_explore=1), (far, [6]))[-1] == [0, 1, 2, 3]
    nearer = [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    window = ExploreAndFill(length=8, k_explore=2, stab_window=3)
    assert walk(window, (far, [6]), (nearer, [7]))[-1] == [0, 1]


def test_nothing_reached_means_one_position():
    """Guards the least estimate, which moves every cycle on."""
    window, low = ExploreAndFill(length=8, k_explore=2), [0.1] * 8
    assert walk(window, (low, [7]), (low, [6]), (low, [0])) == [
        [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6], [0], [1, 2, 3, 4, 5],
    ]  # fmt: skip


def test_one_sure_position_is_not_enough_to_close_several():
    """Guards `at least two`; the loop then closes the best one."""
    assert chosen(SurePair(), [0.95, 0.9, 0.5]) == [0, 1]
    assert chosen(SurePair(), [0.95, 0.85, 0.5]) == []


def test_a_cut_canvas_is_computed_as_if_it_ended_there():
    """Guards the closed form of fast calls, the visible positions of each row, and that no query sees beyond."""
    model, prompts, visible = random_model(), [[2, 30, 4], [2, 31, 77, 4]], [9, 6]
    assert model.spec.mask_id is not None
    canvas = Canvas.from_prompts(prompts, gen_length=8, mask_id=model.spec.mask_id, pad_id=0, seeds=[0, 0])
    canvas.memory[VISIBLE] = torch.tensor(visible)
    row_N, position_N, ledger = torch.tensor([0, 1]), torch.tensor([8, 5]), Ledger()
    made_NV = CutSuffix().evaluate(asked(model, canvas, row_N, position_N, ledger))
    assert ledger.records[-1].query_B.tolist() == visible
    for row, end in enumerate(visible):
        alone_V = model.forward(ForwardRequest(canvas.tokens_BL[row : row + 1, :end]))[0, -1]
        torch.testing.assert_close(made_NV[row], alone_V, atol=1e-11, rtol=0)


class Published:
    """The published cycles for one row and one block, read plainly: tokens, and what each call computes."""

    def __init__(self, model: EmbeddedModel, prompt: list[int], high: float) -> None:
        assert model.spec.mask_id is not None
        self.model, self.start, self.high, self.mask = model, len(prompt), high, model.spec.mask_id
        self.tokens, self.queries = [*prompt, *[self.mask] * LENGTH], []

    def masks(self, first: int, end: int) -> list[int]:
        return [place for place in range(first, end) if self.tokens[self.start + place] == self.mask]

    def call(self, end: int) -> dict[int, float]:
        """Return how sure the masks before `end` are, on a canvas that ends there; remember their tokens."""
        logits_LV = self.model.forward(ForwardRequest(torch.tensor([self.tokens[: self.start + end]])))[0, self.start :]
        logits_LV[:, self.mask] = -torch.inf
        self.queries.append(self.start + end)
        self.best = logits_LV.argmax(-1).tolist()
        return {place: float(logits_LV[place].softmax(-1).max()) for place in self.masks(0, end)}

    def fill(self, sure: dict[int, float], first: int, end: int) -> None:
        inside = {place: c for place, c in sure.items() if first <= place < end}
        chosen = [place for place, c in inside.items() if c >= self.high]
        for place in chosen if len(chosen) > 1 else [max(inside, key=lambda place: inside[place])]:
            self.tokens[self.start + place] = self.best[place]

    def decode(self, k_explore: int, conf_len: float) -> None:
        filled = 0
        while self.masks(0, LENGTH):
            estimates, stable, length = [], False, 0
            for _ in range(k_explore):
                if not self.masks(0, LENGTH):
                    return
                sure = self.call(LENGTH)
                if not stable:
                    reached = [place for place, c in sure.items() if place >= filled and c >= conf_len]
                    estimates = [*estimates[-1:], max(reached) + 1 if reached else filled + 1]
                    stable = len(estimates) == 2 and pstdev(estimates) < 1
                    length = estimates[-1] if stable else int(mean(estimates))
                self.fill(sure, filled, LENGTH)
            end = LENGTH
            while self.masks(filled, length):
                self.fill(self.call(end), filled, length)
                end = length
            filled = length


@pytest.mark.parametrize(("high", "conf_len", "k_explore"), [(0.9, 0.5, 2), (0.5, 0.3, 3), (0.7, 0.9, 2)])
@pytest.mark.parametrize("name", ["random", "trained"])
def test_tokens_and_queries_are_the_published_cycles(name: str, high: float, conf_len: float, k_explore: int):
    """Guards which calls see the whole canvas and which end with the estimate, against a plain reading."""
    model, prompts = (random_model(), PROMPTS[:2]) if name == "random" else trained_model()
    knobs = [f"method.{knob}" for knob in (f"high={high}", f"conf_len={conf_len}", f"k_explore={k_explore}")]
    for prompt in prompts:
        plain = Published(model, list(prompt), high)
        plain.decode(k_explore, conf_len)
        made = run("method=slowfast", "method.score_dtype=float64", *knobs, model=model, prompts=[prompt])
        assert (list(made.tokens[0]), made.queries) == (plain.tokens[plain.start :], plain.queries)


def test_fast_calls_compute_less_on_the_trained_model():
    """Guards the cut canvas in the counts: fewer query tokens than whole canvases, exploring steps left over idle."""
    made = decode_task("list_shuffle", "method=slowfast", "method.k_explore=2")
    assert any(counts.query_tokens < 32 * counts.nfe for counts in made.counts)
    full = decode_task("list_copy", "method=slowfast")
    assert [(counts.nfe, one.idle) for counts, one in zip(full.counts, full.generations, strict=True)] == [(1, 5)] * 6


def test_what_fast_calls_cut_off_is_read_by_nobody():
    """Guards against logits of positions that were not computed."""
    with pytest.raises(ConfigError, match="cut_suffix cuts off what the stopper watch"):
        replay("method=slowfast", "method/stopper=watch")
    assert replay("method=slowfast", "method/stopper=watch", "method/cache=none").calls


KNOBS = ("method=slowfast", "method.k_explore=2", "method.block_length=8")


def test_an_end_that_nothing_reaches_changes_nothing():
    """Guards fast calls beside a rule that looks behind what they show, and exploring steps beside one more call."""
    plain = run(*KNOBS)
    looking = run(*KNOBS, "method/finish=predict_eos", "method.finish.confidence=1.1")
    assert (looking.decided, looking.queries) == (plain.decided, plain.queries)
    still = ("method.finish.eos_init=0", "method.finish.low=0", "method.finish.W=1")
    searching = run(*KNOBS, "method/finish=canvas_growth", *still)
    assert searching.decided == plain.decided
    assert [counts.nfe - 1 for counts in searching.counts] == [counts.nfe for counts in plain.counts]


@pytest.mark.parametrize("knob", ["k_explore=0", "stab_window=0", "high=-1", "block_length=0"])
def test_values_out_of_range_are_refused(knob: str):
    """Guards against a length that no step estimates."""
    with pytest.raises(ConfigError, match=f"method.{knob.split('=')[0]}"):
        replay("method=slowfast", f"method.{knob}")
