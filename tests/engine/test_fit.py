"""What goes with what: the table of rules, on policies made for it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.fit import refuse_arrivals, refuse_kind
from harness.engine.diffusion.method import DiffusionMethod, NoCache
from harness.engine.diffusion.needs import Gives, Leaves, Needs
from harness.engine.shared.model import ModelKind
from harness.engine.shared.prediction import Candidates, Prediction
from harness.errors import ConfigError
from methods.diffusion.blocks import Blocks
from methods.diffusion.freedave import Drafts, FreeDave, Reach
from methods.diffusion.guidance import ClassifierFree
from methods.diffusion.llada import Confidence, Order, Split, Top
from methods.diffusion.prophet import Watch

PLAIN = DiffusionMethod(window=Blocks(length=4), scorer=Confidence(), selector=Top())


@dataclass(frozen=True, kw_only=True)
class Kept(NoCache):
    """A cache that gives what it is told to."""

    gives: Gives = field(default_factory=Gives)  # type: ignore[assignment]
    needs: Needs = field(default_factory=Needs)


@dataclass(frozen=True, kw_only=True)
class Looking:
    """A stopper that never stops, and needs what it is told to."""

    needs: Needs

    def __call__(self, prediction: Prediction, candidates: Candidates, canvas: Canvas) -> Tensor:
        """Return False for every row."""
        return torch.zeros_like(canvas.held_B)


def everything(canvas: Canvas) -> Tensor:
    """Return all positions."""
    return canvas.whole_BL


DRAFTS, ATTENTION, OPEN = Gives(drafts=True), Gives(attention=True), Gives(leaves=Leaves.open)
CASES: list[tuple[dict[str, object], Gives, str]] = [
    ({"guidance": ClassifierFree(scale=1.0)}, Gives(guidance=True), "the canvas alone; use it without guidance"),
    ({"verifier": FreeDave()}, DRAFTS, "no exact predictions of drafts; use method/verifier=none"),
    ({"stopper": Looking(needs=Needs(attention=True))}, ATTENTION, "reads the attention of all positions"),
    ({"verifier": FreeDave(reach=Reach.eager)}, Gives(drafts=True, any_draft=True), "drafts beyond the window"),
    ({"verifier": FreeDave(drafts=Drafts.tree)}, Gives(drafts=True, shared=True), "shares what a cache has stored"),
]


@pytest.mark.parametrize(("others", "enough", "said"), CASES)
def test_a_policy_goes_with_a_cache_that_gives_what_it_needs(others: dict[str, object], enough: Gives, said: str):
    """Guards each rule from both sides: with what it asks for, and with everything but that."""
    assert replace(PLAIN, cache=Kept(gives=enough), **others)  # type: ignore[arg-type]
    drafts = enough if said.startswith("no exact") else Gives(drafts=True)
    with pytest.raises(ValueError, match=said):
        replace(PLAIN, cache=Kept(gives=Gives() if enough == drafts else drafts), **others)  # type: ignore[arg-type]


def test_what_a_cache_leaves_out_is_read_by_nobody():
    """Guards against logits that no call computed: of open positions, and of those behind a window that cuts."""
    for stopper, said in ((Watch(), "every open position"), (Looking(needs=Needs(positions=everything)), "every open")):
        with pytest.raises(ValueError, match=said):
            replace(PLAIN, stopper=stopper, cache=Kept(gives=OPEN))
    behind = Kept(gives=Gives(leaves=Leaves.behind))
    assert replace(PLAIN, stopper=Watch(), cache=behind)

    @dataclass(frozen=True, kw_only=True)
    class Cutting(Blocks):
        gives = Gives(waits=True, cuts=True)

    with pytest.raises(ValueError, match="cuts off what the stopper watch wants to read"):
        replace(PLAIN, window=Cutting(length=4), stopper=Watch(), cache=behind)
    remembering = Looking(needs=Needs(positions=everything, every_call=False))
    assert replace(PLAIN, window=Cutting(length=4), stopper=remembering, cache=behind)


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (Needs(beside={"cache": ("dual", "prefix")}), "use method/cache=dual or method/cache=prefix"),
        (Needs(without={"cache": ("none",)}), "does not go with method/cache=none"),
    ],
)
def test_options_are_asked_for_by_name(needs: Needs, said: str):
    """Guards the two ways of naming what must, or must not, stand in another slot."""
    with pytest.raises(ValueError, match=said):
        replace(PLAIN, stopper=Looking(needs=needs))


def test_an_order_that_is_known_needs_a_random_one_and_a_quota():
    """Guards a cache that computes what closes next before it is predicted."""
    needing = Kept(needs=Needs(known_order=True), gives=Gives())
    drawn = Confidence(order=Order.random)
    assert replace(PLAIN, scorer=drawn, schedule=Split(steps=4, block_length=8, gen_length=8), cache=needing)
    for others in ({"scorer": drawn}, {"schedule": Split(steps=4, block_length=8, gen_length=8)}):
        with pytest.raises(ValueError, match="only a random order with a quota tells"):
            replace(PLAIN, cache=needing, **others)  # type: ignore[arg-type]


def test_kinds_of_models_are_named():
    """Guards policies that are right for some models only."""
    method = replace(PLAIN, stopper=Looking(needs=Needs(kinds=frozenset({ModelKind.BLOCK_DIFFUSION}))))
    refuse_kind(method, ModelKind.BLOCK_DIFFUSION)
    with pytest.raises(
        ValueError, match="the stopper Looking needs a block_diffusion model, not a masked_diffusion one"
    ):
        refuse_kind(method, ModelKind.MASKED_DIFFUSION)


@pytest.mark.parametrize("name", ["fit", "fit_kind", "reads", "remembers", "reads_attention", "foresee", "waits"])
def test_what_the_first_interface_said_is_not_ignored(name: str):
    """Guards plug-ins that are older than `needs` and `gives`: their demands would count no more, unseen."""
    former: Callable[..., None] = lambda self, *given: None  # noqa: E731
    old = type("Old", (Blocks,), {name: former})
    with pytest.raises(ValueError, match=f"the window Old says {name}, which nobody asks since interface 2; say "):
        replace(PLAIN, window=old(length=4))


def test_a_cache_that_is_asked_one_by_one_is_refused():
    """Guards caches of the first interface: they would be told of a request as of a ledger."""

    class Old:
        def evaluate(self, ledger, model, canvas, row_N, position_N, observe=None):
            raise AssertionError

    with pytest.raises(ValueError, match="the cache Old takes what it is asked for one by one; since interface 2"):
        replace(PLAIN, cache=Old())


def test_a_rule_that_reads_across_rows_takes_none_in():
    """Guards batch means, which another row would change."""
    refuse_arrivals(PLAIN)
    with pytest.raises(ValueError, match="the stopper Looking reads across rows, of which none may begin later"):
        refuse_arrivals(replace(PLAIN, stopper=Looking(needs=Needs(across_rows=True))))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("method/selector=denoise", "does not go with method/schedule=none"),
        ("method/selector=dream", "nothing without its schedule; use method/schedule=dream"),
        ("method/selector=dependency", "nothing without its scorer; use method/scorer=attentive"),
        ("method/selector=stability", "nothing without its scorer; use method/scorer=stability"),
        ("method/selector=coherent method.selector.mode=ccd_ds", "use method/scorer=contextual"),
        ("method/scorer=agreement", "nothing without its preparation; use method/preparation=reference_answer"),
        ("method/schedule=slowfast", "nothing without its window; use method/window=slowfast"),
    ],
)
def test_a_policy_that_reads_what_another_leaves_is_refused_without_it(words: str, said: str):
    """Guards the line that says so, in the place of an error in the middle of a run."""
    more = "method.selector.steps=8 method.selector.gen_length=16" if "dream" in words else ""
    overrides = ["model=random_mdm", "method=threshold", "gen_length=16", *words.split(), *more.split()]
    with pytest.raises(ConfigError, match=said):
        build_method(compose(overrides))
