"""How near a choice was to another one: gaps between what decided and what was decided the other way.

A decision stands as long as no number that it hangs on moves by as much as its margin. Margins are [B],
infinite where nothing was compared. Shapes: B rows, L positions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor

from harness.engine.shared.positional import alike

_AT_ONCE = 32
"""Steps whose margins are worked out together: by itself a step would spend a third of its operations on them."""


Gap = Callable[..., Tensor]
"""Returns, of tensors of positions, the smallest gap [B] in each row; equal ones are asked for all rows and steps."""


class Noted(NamedTuple):
    """What decisions hung on: gaps by row, and tensors of positions from which gaps follow.

    `tokens` are gaps [B, L] and the positions that were decided; `bounds` and `rankings` what `nearest` and `across`
    take; `later` another function of that kind, with what it takes.
    """

    gaps: tuple[Tensor, ...] = ()
    bounds: tuple[tuple[Tensor, Tensor], ...] = ()
    tokens: tuple[tuple[Tensor, Tensor], ...] = ()
    rankings: tuple[tuple[Tensor, Tensor, Tensor], ...] = ()
    later: tuple[tuple[Gap, tuple[Tensor, ...]], ...] = ()

    def and_(self, other: "Noted") -> "Noted":
        """Return what all of both hung on."""
        if self is NOTHING or other is NOTHING:
            return other if self is NOTHING else self
        return Noted(*map(add, self, other))  # type: ignore[arg-type]

    def of_tokens(self) -> list[Tensor]:
        """Return the smallest gap by which tokens were decided, [B], if some were."""
        if not self.tokens:
            return []
        gap_NL, decided_NL = (_together(each) for each in zip(*self.tokens, strict=True))
        return [torch.where(decided_NL, gap_NL, torch.inf).view(len(self.tokens), -1, gap_NL.shape[1]).amin((0, 2))]

    def of_choices(self) -> list[Tensor]:
        """Return the smallest gaps by which positions were chosen, [B] each."""
        found, kinds = [*self.gaps], dict[Gap, list[tuple[Tensor, ...]]]()
        noted = [*((nearest, one) for one in self.bounds), *((across, one) for one in self.rankings), *self.later]
        for gap, tensors in noted:
            kinds.setdefault(gap, []).append(tensors)
        for gap, kept in kinds.items():
            gap_N = gap(*map(_together, zip(*kept, strict=True)))
            found.append(gap_N if len(kept) == 1 else gap_N.view(len(kept), -1).amin(0))
        return found


NOTHING = Noted()
_TENSORS = ("token_B", "choice_B", "step_token_B", "step_choice_B", "far_B")


@dataclass(frozen=True, kw_only=True)
class Margins:
    """The smallest gaps [B] that generations hang on, and those of their last step: of tokens, and of what was chosen.

    They are float64, infinite where nothing was compared, and without what is noted of the present step and of
    `earlier` ones; `settled` are those with it.
    """

    token_B: Tensor
    choice_B: Tensor
    step_token_B: Tensor
    step_choice_B: Tensor
    far_B: Tensor
    earlier: Noted = NOTHING
    step: Noted = NOTHING

    @classmethod
    def none(cls, rows: int) -> "Margins":
        """Return the margins of rows that have decided nothing."""
        far_B = torch.full((rows,), torch.inf, dtype=torch.float64)
        return cls(token_B=far_B, choice_B=far_B, step_token_B=far_B, step_choice_B=far_B, far_B=far_B)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Margins":
        """Return settled margins with these tensors."""
        return cls(**tensors)  # type: ignore[arg-type]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What they are when they are settled."""
        now = self.settled
        return {name: getattr(now, name) for name in _TENSORS}

    def and_(self, other: "Margins") -> "Margins":
        """Return the margins of rows that hang on the decisions of both."""
        return Margins.of(alike(torch.minimum, self.tensors, other.tensors))

    def begun(self) -> "Margins":
        """Return the margins at the beginning of another step."""
        made = self if len(self.earlier.tokens) < _AT_ONCE else self.settled
        far_B, earlier = made.far_B, made.earlier.and_(made.step)
        return replace(made, step_token_B=far_B, step_choice_B=far_B, earlier=earlier, step=NOTHING)

    def noting(self, noted: Noted) -> "Margins":
        """Return the margins with what the present step hangs on, too."""
        made = object.__new__(Margins)
        made.__dict__.update(self.__dict__, step=self.step.and_(noted))
        made.__dict__.pop("settled", None)  # which is of what was noted before
        return made

    @cached_property
    def settled(self) -> "Margins":
        """The same margins, with nothing left to be worked out."""
        if self.earlier is NOTHING and self.step is NOTHING:
            return self
        step_token_B = _least([self.step_token_B, *self.step.of_tokens()])
        step_choice_B = _least([self.step_choice_B, *self.step.of_choices()])
        return Margins(
            token_B=_least([self.token_B, step_token_B, *self.earlier.of_tokens()]),
            choice_B=_least([self.choice_B, step_choice_B, *self.earlier.of_choices()]),
            step_token_B=step_token_B,
            step_choice_B=step_choice_B,
            far_B=self.far_B,
        )


def _least(gaps: Sequence[Tensor]) -> Tensor:
    """Return the smallest of gaps [B], as float64."""
    if len(gaps) <= 2:
        return reduce(torch.minimum, gaps)
    return torch.stack([one.double() for one in gaps]).amin(0)


def _together(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat([*parts])


def nearest(slack_BL: Tensor, among_BL: Tensor) -> Tensor:
    """Return the smallest distance of any position of `among_BL` from its bound, `slack_BL` being 0 on the bound."""
    return torch.where(among_BL, slack_BL.abs(), torch.inf).amin(1)


@dataclass(frozen=True)
class Bound:
    """What `nearest` returns of values beside one bound."""

    bound: float

    def __call__(self, value_BL: Tensor, among_BL: Tensor) -> Tensor:
        """Return it for every row."""
        return nearest(value_BL - self.bound, among_BL)


def across(score_BL: Tensor, chosen_BL: Tensor, among_BL: Tensor) -> Tensor:
    """Return the smallest gap in score between a chosen position of `among_BL` and one that is not.

    Positions that share an infinite score are not told apart by it.
    """
    if score_BL.shape[1] == 1:
        return torch.full_like(score_BL[:, 0], torch.inf)
    score_BL, order_BL = torch.where(among_BL, score_BL, -torch.inf).sort(dim=1, descending=True)
    chosen_BL = chosen_BL.gather(1, order_BL)
    gap_BL = score_BL[:, :-1] - score_BL[:, 1:]
    # What is not among them is infinitely far behind, or compares as not a number.
    alike_BL = chosen_BL[:, :-1] == chosen_BL[:, 1:]
    return gap_BL.masked_fill_(alike_BL, torch.inf).nan_to_num_(torch.inf, torch.inf).amin(1)


def ahead(score_BL: Tensor, among_BL: Tensor) -> Tensor:
    """Return by how much the best score of `among_BL` exceeds the next one, as `across` does."""
    two_B2 = score_BL.masked_fill(~among_BL, -torch.inf).topk(min(2, score_BL.shape[1]), dim=1).values
    return (two_B2[:, 0] - two_B2[:, -1]).nan_to_num_(torch.inf, torch.inf)


def prefix(slack_BL: Tensor, count_B: Tensor, first: int, end_B: Tensor) -> Tensor:
    """Return the smallest distance from its bound of a rank that decided how long a prefix is.

    `slack_BL` is by rank. Those from `first` on were looked at until `count_B` were found or `end_B` is reached.
    """
    rank_L = torch.arange(slack_BL.shape[1], device=slack_BL.device)
    return nearest(slack_BL, (rank_L >= first) & (rank_L <= count_B[:, None]) & (rank_L < end_B[:, None]))
