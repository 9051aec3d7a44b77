"""The state of a batch of masked-diffusion generations.

Shapes: B rows, L positions. Rows are prompt, then response, then padding on the right; positions are absolute.
Everything a generation changes is here, so rows can be copied, dropped and repeated, and nothing leaks between
samples.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import is_
from typing import Any

import torch
from torch import Tensor

from harness.engine.diffusion.margins import Margins, Noted
from harness.engine.diffusion.positional import laid_out, padding_mask
from harness.engine.shared.generation import GIVEN
from harness.engine.shared.indexing import filled, positions
from harness.engine.shared.memory import Memory
from harness.engine.shared.model import RowsOf, Store
from harness.engine.shared.positional import alike, levelled, moved, spread
from harness.engine.shared.randomness import AHEAD, row_keys, uniforms_ahead

SETTLED = 1 << 30
"""`draft_from` of rows without drafts."""

_NOWHERE, _PADDING = 1 << 30, "padding"
_COUNTED = (
    *("clock_B", "opened_at_B", "window_index_B", "window_masks_B", "layout_B"),
    *("calls_B", "held_calls_B", "idle_B", "forced_B", "remasked_B", "generated_B", "first_call_B"),
)
"""Fields that count from 0."""


@dataclass(kw_only=True)
class Canvas:
    """Tokens and what is known about them.

    `undecided_BL` is only ever true in the response, where `decided_at_BL` is GIVEN. `window_BL` holds the positions
    that may be committed now. `clock_B` counts the steps of a row, those included that closed nothing; `opened_at_B` is
    where it stood when the row's window opened; `window_masks_B` is the number of undecided positions when it opened,
    `window_index_B` how many windows opened so far: whatever counts from the opening of a window goes by it.
    `calls_B` counts evaluations, `first_call_B` those there were when the first response position was last committed.
    `held_B` marks rows that a policy wants evaluated again although their window is complete; `held_calls_B` counts the
    evaluations made for that. `layout_B` counts how often the positions of a row moved or its end did. `draft_from_B`
    is the step, from 0, from which on decisions may be dropped by a verifier, `SETTLED` for none; `stopped_at_B` the
    one at which the stopper had everything committed (-1: it did not).
    `longest_B` is the greatest length that a row has had. `given_up_B` marks rows that the loop takes no further,
    whatever is undecided or held. `margins` are the smallest gaps by which tokens and positions were decided. `memory`
    holds what policies keep between steps. `stores` holds keys and values; evaluations write them in place, so that of
    the copies of a canvas (not of its rows) only the latest may be evaluated. What follows is worked out by `once`.
    """

    tokens_BL: Tensor
    undecided_BL: Tensor
    window_BL: Tensor
    decided_at_BL: Tensor
    prompt_length_B: Tensor
    length_B: Tensor
    sample_B: Tensor
    seed_B: Tensor
    clock_B: Tensor
    opened_at_B: Tensor
    window_index_B: Tensor
    window_masks_B: Tensor
    calls_B: Tensor
    idle_B: Tensor
    forced_B: Tensor
    remasked_B: Tensor
    generated_B: Tensor
    first_call_B: Tensor
    stopped_at_B: Tensor
    held_B: Tensor
    held_calls_B: Tensor
    layout_B: Tensor
    draft_from_B: Tensor
    longest_B: Tensor
    given_up_B: Tensor
    margins: Margins
    mask_id: int
    fill_id: int
    stop_ids: tuple[int, ...] = ()
    memory: Memory = field(default_factory=Memory)
    stores: dict[str, Store] = field(default_factory=dict)
    known: dict[Hashable, tuple[tuple[Tensor, ...], Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def from_prompts(
        cls,
        prompts: Sequence[Sequence[int]],
        *,
        gen_length: int,
        mask_id: int,
        pad_id: int,
        stop_ids: tuple[int, ...] = (),
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
        constraints: Sequence[dict[int, int]] | None = None,
    ) -> "Canvas":
        """Lay out prompts with `gen_length` masks behind each; `constraints` are tokens by their place among these."""
        rows, given = len(prompts), [{}] * len(prompts) if constraints is None else constraints
        tokens_BL, undecided_BL = laid_out(prompts, given, gen_length, mask_id, pad_id)
        prompt_length_B = torch.tensor([len(p) for p in prompts])
        zero_B = torch.zeros(rows, dtype=torch.int64)
        canvas = cls(
            tokens_BL=tokens_BL,
            undecided_BL=undecided_BL,
            window_BL=torch.zeros_like(undecided_BL),
            decided_at_BL=torch.full_like(tokens_BL, GIVEN),
            prompt_length_B=prompt_length_B,
            length_B=prompt_length_B + gen_length,
            sample_B=torch.arange(rows),
            seed_B=torch.tensor(list(seeds), dtype=torch.int64),
            mask_id=mask_id,
            fill_id=pad_id,
            stop_ids=stop_ids,
            **dict.fromkeys(_COUNTED, zero_B),  # type: ignore[arg-type]
            stopped_at_B=torch.full_like(zero_B, GIVEN),
            **dict.fromkeys(("held_B", "given_up_B"), torch.zeros(rows, dtype=torch.bool)),  # type: ignore[arg-type]
            draft_from_B=torch.full_like(zero_B, SETTLED),
            longest_B=prompt_length_B + gen_length,
            margins=Margins.none(rows),
        )
        unpadded = len({len(prompt) for prompt in prompts}) == 1
        return canvas._with({name: one.to(device) for name, one in canvas._tensors().items()}, unpadded=unpadded)

    def _tensors(self) -> dict[str, Tensor]:
        own = {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return own | {f"margins.{name}": kept for name, kept in self.margins.tensors.items()}

    def _with(self, tensors: Mapping[str, Tensor], *, unpadded: bool = False, **others: Any) -> "Canvas":
        """Return a copy with these tensors, as `_tensors` names them; `unpadded` tells that none of its rows is."""
        own = {name: kept for name, kept in tensors.items() if "." not in name}
        margins = {name.removeprefix("margins."): kept for name, kept in tensors.items() if "." in name}
        known = {_PADDING: ((tensors["length_B"],), None)} if unpadded else {}
        return replace(self, **own, margins=Margins.of(margins), known=known, **others)

    def rows(self, index_D: Tensor, of: RowsOf = lambda store, at: store.rows(at)) -> "Canvas":
        """Return a copy with the rows of `index_D`, in that order, repeats allowed; `of` gives those of stores."""
        tensors = alike(lambda kept: kept.index_select(0, index_D), self._tensors())
        stores = {key: of(store, index_D) for key, store in self.stores.items()}
        return self._with(tensors, unpadded=self.unpadded, memory=self.memory.rows(index_D), stores=stores)

    @classmethod
    def cat(cls, parts: Sequence["Canvas"], index_D: Tensor | None = None) -> "Canvas":
        """Return the rows of all parts (or those of `index_D` of them), as wide as the widest; stores stay behind."""
        width = max(part.tokens_BL.shape[1] for part in parts)
        parts = [part.widened(width) for part in parts]
        join = torch.cat if index_D is None else lambda kept: torch.cat(kept).index_select(0, index_D)
        tensors = alike(lambda *kept: join(kept), *(part._tensors() for part in parts))
        memory = Memory.joined([part.memory for part in parts], [part.num_rows for part in parts])
        memory = memory if index_D is None else memory.rows(index_D)
        return parts[0]._with(tensors, unpadded=all(part.unpadded for part in parts), memory=memory, stores={})

    def joined(self, fresh: "Canvas") -> "Canvas":
        """Return these rows and, behind them, others of which nothing is stored; as wide as the wider of both."""
        stores = {key: store.extended(fresh.num_rows) for key, store in self.stores.items()}
        return replace(Canvas.cat([self, fresh]), stores=stores)

    def widened(self, width: int) -> "Canvas":
        """Return a copy that has at least `width` positions, padding behind."""
        made = self.copy()
        made._widen(width)
        return made

    def with_stores(self, stores: Mapping[str, Store], index_B: Tensor) -> "Canvas":
        """Return a copy to which the rows `index_B` of `stores` belong, one for each row."""
        return replace(self, stores={key: store.rows(index_B) for key, store in stores.items()})

    def evaluated_as(self, other: "Canvas") -> "Canvas":
        """Return a copy that remembers the evaluations of `other`, whose rows have the same tokens."""
        return replace(self, memory=self.memory.with_(other.memory.only_cached()))

    def copy(self) -> "Canvas":
        """Return a copy that can be changed without changing this one; it shares tensors, which nobody changes."""
        made, memory = object.__new__(Canvas), self.memory.copy()
        made.__dict__.update(self.__dict__, memory=memory, stores=dict(self.stores), known=dict(self.known))
        return made

    def where(self, rows_B: Tensor, other: "Canvas") -> "Canvas":
        """Return a copy that is this canvas in the rows marked in `rows_B`, and `other` in the rest."""
        made, other = self.widened(other.tokens_BL.shape[1]), other.widened(self.tokens_BL.shape[1])
        tensors = alike(
            lambda mine, theirs: torch.where(spread(rows_B, mine), *levelled([mine, theirs])),
            *(part._tensors() for part in (made, other)),
        )
        unpadded = made.unpadded and other.unpadded
        return made._with(tensors, unpadded=unpadded, memory=made.memory.where(rows_B, other.memory))

    @property
    def num_rows(self) -> int:
        """Number of rows B."""
        return self.tokens_BL.shape[0]

    @property
    def window_clock_B(self) -> Tensor:
        """Steps of a row since its window opened."""
        return self.once("window_clock", (self.clock_B, self.opened_at_B), torch.sub)

    @property
    def open_BL(self) -> Tensor:
        """Positions that a selector may choose: undecided ones of the window."""
        return self.once("open", (self.undecided_BL, self.window_BL), torch.logical_and)

    @property
    def num_open_B(self) -> Tensor:
        """How many of them each row has."""
        return self.once("num_open", (self.open_BL,), lambda open_BL: open_BL.sum(1))

    def once(self, name: Hashable, sources: tuple[Tensor, ...], make: Callable[..., Any]) -> Any:
        """Return what `make` makes of tensors of the canvas, worked out once as long as they are the same."""
        known = self.known.get(name)
        if known is None or not all(map(is_, known[0], sources)):
            known = self.known[name] = (sources, make(*sources))
        return known[1]

    @property
    def committed_BL(self) -> Tensor:
        """Positions that a step has decided: neither given nor undecided."""
        return self.once("committed", (self.decided_at_BL,), lambda at_BL: at_BL != GIVEN)

    @property
    def decided_here_BL(self) -> Tensor:
        """Those of the window."""
        return self.once("decided_here", (self.committed_BL, self.window_BL), torch.logical_and)

    @property
    def position_L(self) -> Tensor:
        """Every position, from 0."""
        return positions(self.tokens_BL.shape[1], self.tokens_BL.device)

    @property
    def place_BL(self) -> Tensor:
        """Place of every position in its row's response, negative in the prompt."""
        known = self.position_L, self.prompt_length_B
        return self.once("place", known, lambda at_L, start_B: at_L - start_B[:, None])

    @property
    def window_place_BL(self) -> Tensor:
        """Place of every position behind the first one of its row's window, negative before it."""
        at_L, width = self.position_L, self.tokens_BL.shape[1]
        return self.once("in", (self.window_BL,), lambda in_BL: at_L - torch.where(in_BL, at_L, width).amin(1, True))

    @property
    def first_undecided_B(self) -> Tensor:
        """Place of the first undecided position, beyond every place in rows that have none."""
        return self.place_BL.where(self.undecided_BL, _NOWHERE).amin(1)

    @property
    def whole_BL(self) -> Tensor:
        """Positions that are no padding."""
        if self.unpadded:
            return filled((*self.tokens_BL.shape,), True, torch.bool, self.tokens_BL.device)
        return self.once("whole", (self.position_L, self.length_B), lambda at_L, end_B: at_L < end_B[:, None])

    @property
    def unpadded(self) -> bool:
        """Whether it is known that no row is padded."""
        (length_B,), mask = self.known.get(_PADDING, ((None,), None))
        return length_B is self.length_B and mask is None

    def padding_mask(self) -> Tensor | None:
        """Return which keys are no padding, [B, 1, S], or None when no row is padded."""
        return self.once(_PADDING, (self.length_B,), lambda end_B: padding_mask(end_B, self.tokens_BL.shape[1]))

    @property
    def response_BL(self) -> Tensor:
        """Positions of the response."""
        return self.once("response", (self.place_BL, self.whole_BL), lambda at_BL, whole_BL: (at_BL >= 0) & whole_BL)

    def uniforms(self, purpose: str) -> Tensor:
        """Return float64 [B, L] in [0, 1), fixed by sample, step, purpose and position."""
        key_B, width = self.once(row_keys, (self.seed_B,), row_keys), self.tokens_BL.shape[1]
        first_B, row_B = self._drawn_from[0], positions(self.num_rows, key_B.device)
        all_BAL = self.once((purpose, width), (key_B, first_B), lambda key, at: uniforms_ahead(key, at, purpose, width))
        return self.once((purpose,), (all_BAL, self.clock_B), lambda all_BAL, at_B: all_BAL[row_B, at_B - first_B])

    @property
    def _drawn_from(self) -> tuple[Tensor, int]:
        """The clock that numbers were drawn from, and how many steps any row has made since at most."""
        return self.once(uniforms_ahead, (self.clock_B,), lambda clock_B: (clock_B, 0))

    def commit(self, commit_BL: Tensor, tokens_BL: Tensor) -> None:
        """Decide undecided positions; a position that is not undecided is left as it is."""
        commit_BL = commit_BL & self.undecided_BL
        self.decide(commit_BL, tokens_BL, commit_BL.sum(1))

    def decide(self, decided_BL: Tensor, tokens_BL: Tensor, count_B: Tensor) -> None:
        """Decide positions all of which are undecided, `count_B` of each row."""
        self.tokens_BL = torch.where(decided_BL, tokens_BL, self.tokens_BL)
        self.undecided_BL = self.undecided_BL ^ decided_BL
        self.decided_at_BL = torch.where(decided_BL, self.clock_B[:, None], self.decided_at_BL)
        self.generated_B = self.generated_B + count_B
        first_B = decided_BL.gather(1, self.prompt_length_B[:, None])[:, 0]
        self.first_call_B = torch.where(first_B, self.calls_B, self.first_call_B)

    def remask(self, remask_BL: Tensor) -> None:
        """Make committed positions undecided again; prompt and constraints stay. What no call has seen counts not."""
        remask_BL = remask_BL & self.committed_BL
        self.reopen(remask_BL, (remask_BL & (self.decided_at_BL != self.clock_B[:, None])).sum(1))

    def reopen(self, reopened_BL: Tensor, seen_B: Tensor) -> None:
        """Make positions undecided again all of which are committed, `seen_B` of each row by an earlier step."""
        self.remasked_B = self.remasked_B + seen_B
        self.tokens_BL = self.tokens_BL.masked_fill(reopened_BL, self.mask_id)
        self.undecided_BL = self.undecided_BL | reopened_BL
        self.decided_at_BL = self.decided_at_BL.masked_fill(reopened_BL, GIVEN)

    def edit(self, edit_BL: Tensor, tokens_BL: Tensor) -> None:
        """Replace committed tokens in place; when they were decided does not change."""
        edit_BL = edit_BL & self.committed_BL
        self.tokens_BL = torch.where(edit_BL, tokens_BL, self.tokens_BL)
        self.generated_B = self.generated_B + edit_BL.sum(1)

    def fill(self, fill_BL: Tensor, token: int) -> None:
        """Write `token` without a prediction: undecided positions close as of the last step, given ones stay."""
        undecided_BL = fill_BL & self.undecided_BL
        self.tokens_BL = self.tokens_BL.masked_fill(undecided_BL | (fill_BL & self.committed_BL), token)
        self.undecided_BL = self.undecided_BL & ~undecided_BL
        self.decided_at_BL = torch.where(undecided_BL, self.clock_B[:, None] - 1, self.decided_at_BL)

    def begin_step(self) -> None:
        """Forget the margins of the last step."""
        self.margins = self.margins.begun()

    def note_choice(self, gap_B: Tensor) -> None:
        """Keep how far this step was from another choice, in the units of what decided; infinite where nothing did."""
        self.note(gaps=gap_B)

    def note(self, **noted: Any) -> None:
        """Keep what a decision of this step hung on, of which the gap follows later: a field of `Noted`, but `gaps`."""
        self.margins = self.margins.noting(Noted(**{kind: (one,) for kind, one in noted.items()}))

    def open_window(self, rows_B: Tensor, window_BL: Tensor) -> None:
        """Open the next window of the rows marked in `rows_B`: its clock restarts, and caches may compute all."""
        self.window_BL = torch.where(rows_B[:, None], window_BL, self.window_BL)
        self.opened_at_B = torch.where(rows_B, self.clock_B, self.opened_at_B)
        self.window_masks_B = torch.where(rows_B, self.num_open_B, self.window_masks_B)
        self.window_index_B = self.window_index_B + rows_B

    def move_window(self, rows_B: Tensor | None, window_BL: Tensor) -> None:
        """Let the window of the rows marked in `rows_B` (None: of all) begin or end elsewhere: it is not the next one.

        Nothing restarts. Until a step is made in it, its undecided positions are counted anew.
        """
        unused_B = self.window_clock_B == 0
        if rows_B is not None:
            window_BL, unused_B = torch.where(rows_B[:, None], window_BL, self.window_BL), unused_B & rows_B
        self.window_BL = window_BL
        self.window_masks_B = torch.where(unused_B, self.num_open_B, self.window_masks_B)

    def tick(self, rows_B: Tensor | None, steps_B: Tensor | int = 1) -> None:
        """Advance the clock of the rows marked in `rows_B` (None: of all)."""
        first_B, since = self._drawn_from
        self.clock_B = self.clock_B + (steps_B if rows_B is None else rows_B * steps_B)
        if isinstance(steps_B, int) and 0 < steps_B < AHEAD - since:
            self.known[uniforms_ahead] = (self.clock_B,), (first_B, since + steps_B)

    def resize(self, length_B: Tensor) -> None:
        """Grow rows by masks at the end, or cut them, so that row b has `length_B[b]` positions."""
        self._widen(int(length_B.max()))
        position_L = self.position_L
        added_BL = (position_L >= self.length_B[:, None]) & (position_L < length_B[:, None])
        cut_BL = (position_L < self.length_B[:, None]) & (position_L >= length_B[:, None])
        self.tokens_BL = self.tokens_BL.masked_fill(added_BL, self.mask_id).masked_fill(cut_BL, self.fill_id)
        self.undecided_BL = (self.undecided_BL | added_BL) & ~cut_BL
        self.window_BL = self.window_BL & ~cut_BL
        self.decided_at_BL = self.decided_at_BL.masked_fill(cut_BL, GIVEN)
        self.layout_B = self.layout_B + (length_B != self.length_B)
        self.length_B = length_B
        self.longest_B = torch.maximum(self.longest_B, length_B)

    def _widen(self, width: int) -> None:
        if self.memory.positional:
            self.memory.widen(width, width - int(self.prompt_length_B.min()))
        extra = width - self.tokens_BL.shape[1]
        if extra > 0:
            self.margins = self.margins.settled
            self.known, pad = {}, torch.nn.functional.pad
            fills = {"tokens_BL": self.fill_id, "undecided_BL": False, "window_BL": False, "decided_at_BL": GIVEN}
            for name, value in fills.items():
                setattr(self, name, pad(getattr(self, name), (0, extra), value=value))

    def insert(self, position_B: Tensor, count_B: Tensor) -> None:
        """Insert `count_B` masks (0: none) before the absolute `position_B` of every row.

        They are in the window if the position that they push aside is.
        """
        self._widen(int((self.length_B + count_B).max()))
        for name, value in (("tokens_BL", self.mask_id), ("undecided_BL", True), ("decided_at_BL", GIVEN)):
            setattr(self, name, moved(getattr(self, name), 1, position_B, count_B, value))
        self.memory.insert(position_B, self.prompt_length_B, count_B)
        position_L = self.position_L
        inside_BL = (position_L >= position_B[:, None]) & (position_L < (position_B + count_B)[:, None])
        joins_B1 = self.window_BL.gather(1, position_B[:, None])
        self.window_BL = moved(self.window_BL, 1, position_B, count_B, False) | (inside_BL & joins_B1)
        self.layout_B = self.layout_B + (count_B > 0)
        self.length_B = self.length_B + count_B
        self.longest_B = torch.maximum(self.longest_B, self.length_B)
