"""Which policies go together, and with which models: one table, and nobody else decides it.

A policy says what it needs and gives (`harness.engine.diffusion.needs`); a rule says what follows from that.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from inspect import signature
from typing import TYPE_CHECKING

from harness.engine.diffusion.needs import Gives, Leaves, Needs, gives_of, needs_of
from harness.engine.shared.model import ModelKind
from harness.engine.shared.policy import REGISTRY

if TYPE_CHECKING:
    from harness.engine.diffusion.method import DiffusionMethod


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A policy of a method with what it needs, and what the method's cache gives."""

    method: "DiffusionMethod"
    slot: str
    part: object
    needs: Needs
    cache: Gives

    @property
    def words(self) -> dict[str, str]:
        """The names of both."""
        return {"part": f"the {self.slot} {option(self.part)}", "cache": f"the cache {option(self.method.cache)}"}


_RULES: tuple[tuple[Callable[[Pair], object], str], ...] = (
    (
        lambda at: at.slot == "guidance" and at.method.guidance.copies != 1 and not at.cache.guidance,
        "{cache} keeps the rows of the canvas alone; use it without guidance (scale 0)",
    ),
    (
        lambda at: at.slot == "verifier" and at.method.drafts and not at.cache.drafts,
        "{cache} gives no exact predictions of drafts; use method/verifier=none",
    ),
    (
        lambda at: at.needs.attention and not at.cache.attention,
        "{part} reads the attention of all positions, which this cache does not compute; use method/cache=none",
    ),
    (
        lambda at: at.slot == "stopper" and at.method.stops and at.cache.leaves is Leaves.open,
        "{cache} does not predict every open position; use method/stopper=never",
    ),
    (
        lambda at: at.needs.positions is not None and at.cache.leaves is Leaves.open,
        "{cache} does not predict every position that {part} reads; use method/cache=none",
    ),
    (
        lambda at: (
            at.needs.positions is not None
            and at.needs.every_call
            and at.cache.leaves is Leaves.behind
            and gives_of(at.method.window).cuts
        ),
        "{cache} cuts off what {part} wants to read; use method/cache=none",
    ),
    (
        lambda at: at.needs.any_draft and not at.cache.any_draft,
        "{part} drafts beyond the window that {cache} is for; use method/cache=none or block_causal",
    ),
    (
        lambda at: at.needs.shared and not at.cache.shared,
        "{part} shares what a cache has stored; use method/cache=prefix, dual, block_causal or sub_block",
    ),
    (
        lambda at: at.needs.known_order and not (gives_of(at.method.scorer).known_order and at.method.scheduled),
        "{part} computes what is decided next, which only a random order with a quota tells; "
        "use method=llada method.remasking=random",
    ),
)
"""What may not be, of each policy and the method that it is in, and what is said of it."""


_FORMER = {
    "foresee": "before_commit",
    "reads": "needs = Needs(positions=...)",
    "remembers": "needs = Needs(every_call=False)",
    "reads_attention": "needs = Needs(attention=True)",
    "fit": "needs = Needs(beside=...) or gives = Gives(...)",
    "fit_kind": "needs = Needs(kinds=...)",
    "exact": "gives = Gives(shared=True, any_draft=...)",
    **{name: f"gives = Gives({name}=True)" for name in ("waits", "decides", "steady")},
}
"""How policies of the first interface said what `needs` and `gives` say; left alone, it would count no more, unseen."""


def refuse_misfits(method: "DiffusionMethod") -> None:
    """Raise ValueError saying which policies of `method` do not go together, and what would do."""
    pairs = list(_pairs(method))
    for at in pairs:
        _refuse_former(at)
    for at in pairs:
        for slot, options in at.needs.beside.items():
            if option(getattr(method, slot)) not in options:
                raise ValueError(f"{at.words['part']} is nothing without its {slot}; use {_chosen(slot, options)}")
        for slot, options in at.needs.without.items():
            if option(chosen := getattr(method, slot)) in options:
                raise ValueError(
                    f"{at.words['part']} does not go with method/{slot}={option(chosen)}; use another method/{at.slot}"
                )
    for broken, said in _RULES:
        for at in filter(broken, pairs):
            raise ValueError(said.format(**at.words))


def _refuse_former(at: Pair) -> None:
    cls = type(at.part)
    # A parameter may have any name; what returns positions may, if it is `needs` that names it.
    ours = {*getattr(cls, "__dataclass_fields__", ()), *(["reads"] if at.needs.positions is not None else [])}
    for name, now in _FORMER.items():
        if name not in ours and hasattr(cls, name):
            raise ValueError(f"{at.words['part']} says {name}, which nobody asks since interface 2; say {now}")
    evaluate = getattr(at.part, "evaluate", None) if at.slot == "cache" else None
    if evaluate is not None and "row_N" in signature(evaluate).parameters:
        raise ValueError(
            f"{at.words['part']} takes what it is asked for one by one; since interface 2 it is evaluate(request), "
            "with ledger, model, canvas, places and observe in it"
        )


def refuse_kind(method: "DiffusionMethod", kind: ModelKind) -> None:
    """Raise ValueError saying which policy of `method` does not work on models of this kind."""
    for at in _pairs(method):
        if at.needs.kinds is not None and kind not in at.needs.kinds:
            kinds = " or ".join(sorted(one.value for one in at.needs.kinds))
            raise ValueError(
                f"{at.words['part']} needs a {kinds} model, not a {kind.value} one; use another method/{at.slot}"
            )


def refuse_arrivals(method: "DiffusionMethod") -> None:
    """Raise ValueError saying which policy of `method` reads across rows, so that none may begin beside others."""
    for at in _pairs(method):
        if at.needs.across_rows:
            raise ValueError(f"{at.words['part']} reads across rows, of which none may begin later; use batching=fixed")


def option(part: object) -> str:
    """Return the name by which a policy is chosen, or that of its class if it has none."""
    return next((name for (_, name), cls in REGISTRY.items() if cls is type(part)), type(part).__name__)


def _pairs(method: "DiffusionMethod") -> Iterator[Pair]:
    cache = gives_of(method.cache)
    for slot in fields(method):
        part = getattr(method, slot.name)
        yield Pair(method=method, slot=slot.name, part=part, needs=needs_of(part), cache=cache)


def _chosen(slot: str, options: tuple[str, ...]) -> str:
    return " or ".join(f"method/{slot}={name}" for name in options)
