"""SWIFT: the model drafts without some of its attention and feed-forward parts, which it finds while it writes.

Paper: Xia et al., arXiv:2410.06916; released code: hemingkx/SWIFT, model/swift.

Of the attention and feed-forward parts of all layers but the first and the last, int(2 (L - 2) r) are skipped while
drafting; drafts see the keys and values that the whole model has left of the text. A draft stops behind a token less
sure than `threshold`. With `tree` more candidates stand at every place of the chain, and nothing behind them: of its
four numbers, which count the chain's own token, that for a token above 0.95, 0.8, 0.5, or below. Once an answer has
more than `context_window` + 1 tokens, every `opt_interval` rounds another set is tried: one call over the first
`context_window` tokens of the answer counts how many next ones it would have said. A better set is kept.

| symbol | argument | default |
|---|---|---|
| r | r | 0.45 |
| | threshold | 0.8, of the softmax at temperature 1 |
| | draft_length.length | 25 |
| | tree | none: a chain; released: [3,5,8,10], and [1,3,5,10] above temperature 0 |
| | tree_nodes | 250: the largest tree, 25 places of 10 |
| | opt_interval, bayes_interval | 1, 25: every so many tries is a Gaussian process's, others are random; 0: none is |
| | max_opt_iter, max_tolerance | 1000, 300 tries in all, and in a row without a better one; 0 tries: no search |
| | max_score | 0.95: a set as good as that ends the search |
| | context_window | 32 |
| | attention, feed_forward | layers, from 0, whose parts are skipped at first; none given: every other one, 1, 3, ... |
| tau | temperature | 0: greedy |

Deviations from the released code: an answer searches for itself, where the released search goes on over a stream and
makes answers depend on their order; the set that it begins with has the size of all others, where the released one is
all of every other layer; drafts are a chain unless `tree` is given; every law is the processed one, where the release
takes raw logits behind a leaf, and pads short paths with token 0; the Gaussian process is optuna's, which expects
improvement, in place of an upper bound with kappa 2.5. As there, the set that a search begins with is never scored, so
that the first try replaces it if it is right about anything.
Invariants: temperature 0 equals greedy decoding for any set and tree, also while the set changes; with r = 0 every
chain stands; a round whose chain has g tokens loads g (L - skipped / 2) + L layers, a try L - skipped / 2; its call
computes 1 + the candidates of all places; with one candidate everywhere a tree is the chain.
"""

from dataclasses import fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal
from harness.engine.autoregressive.parts import ask_groups
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.stopping import Drafted
from harness.engine.autoregressive.trees import MOST_NODES
from harness.engine.autoregressive.windows import Window
from harness.engine.shared.largest import at_largest
from harness.engine.shared.model import LanguageModel, Part
from harness.engine.shared.policy import policy
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.records import Ledger, Role
from harness.errors import FieldError, at_least, within
from methods.autoregressive.comb import LEVELS, Comb
from methods.autoregressive.layer_search import Rules, Search, require_optimiser
from methods.autoregressive.sample import Law
from methods.autoregressive.self_draft import SelfDraft, draft, sure

_PREFIX, _KEPT = "swift.", [one.name for one in fields(Search)]


@policy("method/drafter", "swift")
class Swift:
    """Draft with the target less a share `r`, in [0, 1), of its inner layers' parts, and search for better ones."""

    r: float = 0.45
    threshold: float = 0.8
    attention: tuple[int, ...] = ()
    feed_forward: tuple[int, ...] = ()
    opt_interval: int = 1
    bayes_interval: int = 25
    max_opt_iter: int = 1000
    max_tolerance: int = 300
    max_score: float = 0.95
    context_window: int = 32
    tree: tuple[int, ...] = ()
    tree_nodes: int = 250
    temperature: float = 0.0
    of_draft: ClassVar[bool] = False
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Law(self.temperature, 0, 1.0)
        at_least(0, threshold=self.threshold)
        within(1, MOST_NODES, tree_nodes=self.tree_nodes)
        if not 0 <= self.r < 1:
            raise FieldError("r", self.r, "lie in [0, 1) (0 skips nothing; all cannot be skipped)")
        at_least(1, opt_interval=self.opt_interval, context_window=self.context_window)
        at_least(
            0, bayes_interval=self.bayes_interval, max_opt_iter=self.max_opt_iter, max_tolerance=self.max_tolerance
        )
        if self.tree and (len(self.tree) != len(LEVELS) + 1 or min(self.tree) < 1):
            above = ", ".join(map(str, LEVELS))
            must = f"be empty, a chain, or numbers of at least 1, for tokens above {above} and for others"
            raise FieldError("tree", [*self.tree], must)
        if max(self.tree, default=0) > self.tree_nodes:
            raise FieldError("tree", [*self.tree], f"have at most {self.tree_nodes} candidates, as many as tree_nodes")

    @property
    def nodes(self) -> int:
        """Return the largest number of tokens of a tree; 0 for chains."""
        return self.tree_nodes if self.tree else 0

    @property
    def from_text(self) -> bool:
        """Say whether drafts are chains that hang on the text alone: without a search."""
        return self.max_opt_iter == 0 and not self.tree

    @property
    def rules(self) -> Rules:
        """How the search goes."""
        return Rules(**{one.name: getattr(self, one.name) for one in fields(Rules)})

    def fit_layers(self, layers: int) -> None:
        """Raise FieldError for layers that are not there or have to stay, MissingDependency without an optimiser."""
        for name in ("attention", "feed_forward"):
            given = getattr(self, name)
            if not {*given} <= {*range(1, layers - 1)}:
                inner = f"be of 1 to {layers - 2}" if layers > 2 else "be empty"
                must = f"{inner}: the first and the last of {layers} layers stay"
                raise FieldError(name, f"[{','.join(map(str, given))}]", must)
        if self.max_opt_iter and self.bayes_interval:
            require_optimiser()

    def skipped(self, layers: int) -> Tensor:
        """Return the mask [H] of the halves that are skipped at first."""
        skipped_H = torch.zeros(2 * layers, dtype=torch.bool)
        if self.attention or self.feed_forward:
            skipped_H[[2 * one for one in self.attention] + [2 * one + 1 for one in self.feed_forward]] = True
            return skipped_H
        inner = 2 * max(0, layers - 2)
        order = [2 * one + half for first in (1, 2) for one in range(first, layers - 1, 2) for half in (0, 1)]
        skipped_H[order[: int(inner * self.r)]] = True
        return skipped_H

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return tokens of what is left of the target, fewer than `limit_B` where one is not sure."""
        search = self._search(model, sequences, ledger)
        comb = Comb(candidates=self.tree, nodes=self.tree_nodes)
        sure_R = sure(torch.full(limit_B.shape, self.threshold, dtype=torch.float64, device=limit_B.device))

        def keep_going(drafted: Drafted) -> Tensor:
            if self.temperature:
                drafted = replace(drafted, logits_RV=drafted.logits_RV * self.temperature)
            return comb.grow(drafted) & sure_R(drafted) if self.tree else sure_R(drafted)

        how = SelfDraft(groups=_groups(search.skipped_BH), temperature=self.temperature, keep_going=keep_going)
        chain = draft(how, model, sequences, limit_B, ledger).proposal
        return comb.around(chain, sequences) if self.tree else chain

    def _search(self, model: LanguageModel, sequences: Sequences, ledger: Ledger) -> Search:
        search = self._known(model, sequences)
        generated_B = sequences.length_B - sequences.prompt_length_B
        due_B = (
            search.due(self.rules, sequences.rounds_B - 1, generated_B)
            & bool(self.max_opt_iter)
            & bool(search.points_BPF.shape[2])
        )
        if bool(due_B.any()):
            uniform_BF = uniforms(sequences.seed_B, search.tried_B, "layers", search.points_BPF.shape[2])
            sets_BH, points_BF = search.proposals(self.rules, due_B, uniform_BF)
            score_B = self._score(sets_BH, due_B, model, sequences, ledger)
            search = search.learned(self.rules, due_B, sets_BH, points_BF, score_B)
        memory = sequences.memory
        memory |= {_PREFIX + name: getattr(search, name) for name in _KEPT}
        return search

    def _known(self, model: LanguageModel, sequences: Sequences) -> Search:
        """Return the searches of the rows as they stand; those of rows that have none begin."""
        memory = sequences.memory
        if all(memory.complete(_PREFIX + name) for name in _KEPT):
            return Search(**{name: memory[_PREFIX + name] for name in _KEPT})
        search = Search.begin(self.skipped(model.spec.layers).to(model.device), sequences.num_rows)
        if _PREFIX + _KEPT[0] not in memory:
            return search
        search = search.with_room(memory[f"{_PREFIX}scores_BP"].shape[1])
        return Search(**{name: memory.get(_PREFIX + name, getattr(search, name)) for name in _KEPT})

    def _score(
        self, sets_BH: Tensor, due_B: Tensor, model: LanguageModel, sequences: Sequences, ledger: Ledger
    ) -> Tensor:
        """Return which share of the first tokens of the answer a set says itself, [B]; 0 where nothing is tried."""
        start_B, width = sequences.prompt_length_B, self.context_window
        # A copy, as verification needs the keys and values that the whole model has left of these tokens.
        store = sequences.store.rows(torch.arange(sequences.num_rows, device=start_B.device))
        window = Window(
            tokens_BL=sequences.tokens_BL, start_B=start_B, end_B=start_B + width, read_B=start_B, store=store
        )
        groups = [(part, mine_B & due_B) for part, mine_B in _groups(sets_BH)]
        said = ask_groups(model, window, groups, sequences, ledger, Role.DRAFT)
        right_N = at_largest(said.logits_NV) == said.gather(sequences.tokens_BL)
        return said.scatter(right_N.double(), 0.0).sum(1) / width


def _groups(sets_BH: Tensor) -> list[tuple[Part, Tensor]]:
    """Return the part that each set leaves, with the rows that have it."""
    kinds_GH, group_B = sets_BH.unique(dim=0, return_inverse=True)
    return [
        (Part(skipped=frozenset(set_H.nonzero()[:, 0].tolist())), group_B == group)
        for group, set_H in enumerate(kinds_GH)
    ]
