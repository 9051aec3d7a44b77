"""Drafts of the target itself: a part of its layers writes a chain of tokens, and stops where it is not sure.

Shapes: B rows, K drafted tokens, T fed positions, C channels, R rows that draft, V vocabulary, L positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal
from harness.engine.autoregressive.parts import ask_groups
from harness.engine.autoregressive.sequences import Sequences, is_stop
from harness.engine.autoregressive.stopping import KeepGoing
from harness.engine.autoregressive.windows import Window
from harness.engine.shared.model import LanguageModel, Part, Taps
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.records import Ledger, Role
from methods.autoregressive.chains import always, drawn, proposed


def sure(threshold_B: Tensor) -> KeepGoing:
    """Return the rule that stops a row behind a token less probable than its threshold; NaN stops nothing."""
    return lambda drafted: ~(drafted.probability_R() < threshold_B[drafted.row_R])


@dataclass(frozen=True, kw_only=True)
class SelfDraft:
    """How a chain is drafted. `groups` are parts of the target, each with the rows, a mask [B], that draft with it.

    Tokens are drawn at `temperature` (0: the most probable one), as long as `keep_going` says so. With `complete` the
    last token is fed as well, so that all of them have passed the part. Hidden states at the depths `taps` are kept.
    """

    temperature: float
    groups: Sequence[tuple[Part, Tensor]] = ()
    keep_going: KeepGoing = always
    complete: bool = False
    taps: frozenset[int] = frozenset()


@dataclass(kw_only=True)
class SelfDrafted:
    """What was drafted, and the hidden states of what was fed, [B, T, C] by depth; 0 where nothing was."""

    proposal: Proposal
    states: Mapping[int, Tensor] = field(default_factory=dict)


def draft(how: SelfDraft, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> SelfDrafted:
    """Return `limit_B` tokens per row, fewer where one ends the answer or is not sure.

    Keys and values are written to the slots behind the committed tokens, which verification overwrites or goes on from.
    """
    tokens_BL, length_B, count_B = sequences.tokens_BL.clone(), sequences.length_B, torch.zeros_like(limit_B)
    most = int(limit_B.max())
    uniform_BK = uniforms(sequences.seed_B, length_B, "draft", max(1, most))
    fed_B = wants_B = limit_B > 0
    laws: list[Tensor] = []
    steps: list[Mapping[int, Tensor]] = []
    while bool(fed_B.any()):
        said, states = _fed(how, model, sequences, tokens_BL, length_B + count_B, (fed_B, wants_B), ledger)
        steps.append(states)
        if not bool(wants_B.any()):
            break
        uniform_B, step = uniform_BK[:, len(steps) - 1], len(steps)
        drafted, q_BV = drawn(how.temperature, said.row_N, said.logits_NV, uniform_B, sequences, step)
        laws += [] if q_BV is None else [q_BV]
        at_B1 = (length_B + count_B)[:, None]
        token_B = torch.zeros_like(count_B).index_copy(0, drafted.row_R, drafted.token_R)
        goes_on_B = torch.zeros_like(wants_B).index_copy(0, drafted.row_R, how.keep_going(drafted))
        tokens_BL = torch.where(wants_B[:, None], tokens_BL.scatter(1, at_B1, token_B[:, None]), tokens_BL)
        count_B = count_B + wants_B
        completes_B = wants_B & how.complete
        wants_B = wants_B & (count_B < limit_B) & ~is_stop(token_B, model.spec.stop_ids) & goes_on_B
        fed_B = wants_B | completes_B
    proposal = proposed(tokens_BL, length_B, count_B, most, laws)
    # What the first step did not pass, no later one does: rows leave, none comes.
    states = {
        depth: torch.cat([step.get(depth, torch.zeros_like(first)) for step in steps], 1)
        for depth, first in (steps[0] if steps else {}).items()
    }
    return SelfDrafted(proposal=proposal, states=states)


def _fed(
    how: SelfDraft,
    model: LanguageModel,
    sequences: Sequences,
    tokens_BL: Tensor,
    end_B: Tensor,
    rows: tuple[Tensor, Tensor],
    ledger: Ledger,
) -> tuple[Prediction, Mapping[int, Tensor]]:
    """Feed the newest token of the rows that are fed; of those that want one, return what is predicted behind it."""
    fed_B, wants_B = rows
    window = Window(
        tokens_BL=tokens_BL,
        start_B=end_B - fed_B.long(),
        end_B=end_B,
        read_B=end_B - wants_B.long(),
        store=sequences.store,
        part=Part(taps=Taps(how.taps)),
    )
    groups = [(part, mine_B & fed_B) for part, mine_B in how.groups]
    said = ask_groups(model, window, groups, sequences, ledger, Role.DRAFT)
    assert window.part is not None
    return said, window.part.taps.states
