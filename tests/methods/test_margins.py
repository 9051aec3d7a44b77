"""How near answers were to others, against plain loops over the logits, and under logits that are disturbed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from harness.config.build import build_method
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import ForwardRequest
from harness.models.embedded import EmbeddedModel
from tests.caches.decoding import LENGTH, PROMPTS, Made, decode_with, random_model, run, trained_model

BLOCK = 8
EXACT = ["method.score_dtype=float64", f"method.block_length={BLOCK}"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step as a plain loop sees it: log probabilities by undecided place, the open places and the chosen ones."""

    index: int
    log_p: dict[int, list[float]]
    open: list[int]
    chosen: list[int]

    def best(self, place: int) -> float:
        """Return the log probability of the best token."""
        return max(self.log_p[place])

    def sure(self, place: int) -> float:
        """Return the probability of the best token."""
        return math.exp(self.best(place))

    def entropy(self, place: int) -> float:
        """Return the entropy in nats."""
        return -sum(math.exp(one) * one for one in self.log_p[place] if one > -math.inf)

    def ranked(self) -> list[int]:
        """Return the open places, surest first."""
        return sorted(self.open, key=self.best, reverse=True)

    def by_rank(self) -> float:
        """Return the gap in log probability between the chosen places and the other open ones."""
        others = [self.best(place) for place in self.open if place not in self.chosen]
        return min((self.best(place) for place in self.chosen), default=math.inf) - max(others, default=-math.inf)


def steps(model: EmbeddedModel, prompt, made: Generation) -> Iterator[Step]:
    """Go through the canvases of an answer, each evaluated by itself."""
    for index in sorted(set(made.decided_at)):
        left = [place for place in range(LENGTH) if made.decided_at[place] >= index]
        tokens = [model.spec.mask_id if place in left else made.tokens[place] for place in range(LENGTH)]
        with torch.inference_mode():
            logits_RV = (
                model.forward(ForwardRequest(torch.tensor([[*prompt, *tokens]]))).flatten(0, -2)[-LENGTH:].clone()
            )
            logits_RV[:, model.spec.mask_id] = -torch.inf
        yield Step(
            index=index,
            log_p={place: logits_RV[place].log_softmax(-1).tolist() for place in left},
            open=[place for place in left if place // BLOCK == left[0] // BLOCK],
            chosen=[place for place in left if made.decided_at[place] == index],
        )


def top(step: Step) -> float:
    """A quota: the gap between ranks."""
    return step.by_rank()


def threshold(step: Step, tau: float = 0.1) -> float:
    """A bound, and the gap to the second where the best was forced."""
    near = min(abs(step.sure(place) - tau) for place in step.open)
    return near if any(step.sure(place) >= tau for place in step.open) else min(near, step.by_rank())


def factor(step: Step, f: float = 2.5) -> float:
    """The bounds of all ranks up to the first that fails."""
    gaps = [step.sure(place) - (1 - f / (n + 1)) for n, place in enumerate(step.ranked(), 1)][1:]
    return min([abs(gap) for gap in gaps[: len(step.chosen)]] + [step.by_rank()])


def eb(step: Step, gamma: float = 6.0) -> float:
    """The budget at all ranks up to the first that exceeds it; places in the order of their entropy."""
    places = sorted(step.open, key=step.entropy)
    entropies = [step.entropy(place) for place in places]
    gaps = [gamma - (sum(entropies[:n]) - max(entropies[:n])) for n in range(2, len(places) + 1)]
    closed, others = entropies[: len(step.chosen)], entropies[len(step.chosen) :]
    assert set(places[: len(step.chosen)]) == set(step.chosen)
    return min([abs(gap) for gap in gaps[: len(step.chosen)]] + [min(others, default=math.inf) - max(closed)])


class Klass:
    """Readiness by confidence and calm, and LLaDA's quota where nothing is ready."""

    tau, eps, H = 0.05, 0.05, 2

    def __init__(self) -> None:
        self.before: dict[int, list[float]] = {}
        self.divergences: dict[int, list[float]] = {}
        self.block, self.first = -1, 0

    def __call__(self, step: Step) -> float:
        """Return the margin, and remember what the step said."""
        if step.open[0] // BLOCK != self.block:
            self.block, self.first = step.open[0] // BLOCK, step.index
        for place, log_p in step.log_p.items():
            p = [math.exp(one) for one in log_p]
            q = self.before.get(place, [0.0] * len(p))
            kl = sum(a * (math.log(a + 1e-12) - math.log(b + 1e-12)) for a, b in zip(p, q, strict=True))
            self.divergences.setdefault(place, []).append(kl)
            self.before[place] = p
        slack = {place: min(step.sure(place) - self.tau, self._calm(place, step)) for place in step.open}
        ready = [place for place in step.open if slack[place] > 0]
        near = min(abs(one) for one in slack.values())
        return near if ready else min(near, step.by_rank())

    def _calm(self, place: int, step: Step) -> float:
        """Return how far the divergences of the present calm, or the last one that broke it, are from the bound."""
        if step.index - self.first < self.H - 1:
            return -math.inf
        slacks = [self.eps - kl for kl in self.divergences[place]]
        broken = max((at for at, slack in enumerate(slacks) if slack <= 0), default=-1)
        return min(slacks[broken + 1 :]) if len(slacks) - 1 - broken >= self.H else slacks[broken]


RULES = {
    "llada": (["method=llada", "method.steps=8"], lambda: top),
    "threshold": (["method=threshold", "method.threshold=0.1"], lambda: threshold),
    "factor": (["method=factor", "method.factor=2.5"], lambda: factor),
    "eb": (["method=eb", "method.gamma=6.0"], lambda: eb),
    "klass": (["method=klass", "method.tau=0.05", "method.eps=0.05"], Klass),
    "freedave": (["method=llada", "method.steps=8", "method/verifier=freedave"], lambda: top),
}


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_margins_are_those_of_a_plain_loop(name: str, trained: bool):
    """Guards both margins: a gap that is left out, or taken from another step or row, calls a tie a difference."""
    model, prompts = trained_model() if trained else (random_model(), PROMPTS[::3])
    overrides, rule = RULES[name]
    made = run(*overrides, *EXACT, model=model, prompts=prompts)
    for prompt, one in zip(prompts, made.generations, strict=True):
        judge, tokens, choices = rule(), [], []
        for step in steps(model, prompt, one):
            choices.append(judge(step))
            best = [sorted(step.log_p[place])[-2:] for place in step.chosen]
            tokens += [first - second for second, first in best]
        assert one.token_margin == pytest.approx(min(tokens), rel=1e-6)
        assert one.choice_margin == pytest.approx(min(choices), rel=1e-6, abs=2e-7)


@pytest.mark.parametrize("rule", ["top", "threshold"])
def test_subset_drafts_hang_on_what_accepted_them(rule: str):
    """Guards against a margin of drafted steps alone: the steps that confirmed them decided, too."""
    overrides = ["method=freedave", "method.draft_steps=4", *EXACT]
    sure = run(*overrides, "method.threshold=0.1").generations
    assert all(one.choice_margin is not None and one.token_margin is not None for one in sure)
    lossless = run(*overrides).generations
    plain = run("method=llada", *EXACT).generations
    assert [one.choice_margin for one in lossless] == pytest.approx([one.choice_margin for one in plain])


def test_what_is_drawn_has_no_token_margin():
    """Guards against calling a sampled token near to another one: its uniform number decided."""
    drawn = run("method=llada", "method.temperature=1", *EXACT).generations
    assert {one.token_margin for one in drawn} == {None}
    assert all(one.choice_margin is not None for one in drawn)


@dataclass
class Disturbed:
    """A model whose logits are off by up to `by`, always by the same at the same place in the batch."""

    model: EmbeddedModel
    by: float

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def forward(self, request: ForwardRequest) -> Tensor:
        """Add noise that depends on the logits themselves."""
        logits = self.model.forward(request)
        return logits + self.by * (1e6 * logits).sin()


def answers(method: DiffusionMethod, kind: str, by: float) -> Made:
    """Decode with a disturbed model."""
    return decode_with(method, Disturbed(random_model(kind), by), PROMPTS)


DIFFUSION = [name for name in names("method") if read("method", name)["family"] == "diffusion"]
BY, FACTOR = 3e-3, 20


@pytest.mark.parametrize("name", DIFFUSION)
def test_answers_change_where_margins_are_small(name: str):
    """Guards whoever calls a difference a tie, or does not: an answer that a disturbance changes was near another.

    `FACTOR` is how much more than a logit the numbers that a rule compares may move.
    """
    kind = read("method", name)["models"][0]
    model = "tiny_block" if kind == "block_diffusion" else "random_mdm"
    block = [f"method.block_length={BLOCK}"] if "block_length" in read("method", name) else []
    method = build_method(
        compose([f"model={model}", f"method={name}", *block, f"gen_length={LENGTH}", "method.score_dtype=float64"])
    )
    assert isinstance(method, DiffusionMethod)
    plain, other = answers(method, kind, 0.0), answers(method, kind, BY)
    for one, changed in zip(plain.generations, other.generations, strict=True):
        margin = min(one.token_margin or math.inf, one.choice_margin or math.inf)
        assert margin > 0
        if replace(one, first_call=0) != replace(changed, first_call=0):
            assert margin < FACTOR * BY, (one, changed)
