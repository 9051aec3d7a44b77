"""ADED: a table of trigrams that adapts to the text is searched for a tree of drafts.

Paper: Liu et al., arXiv:2407.12021 (AAAI 2025). Code: liuxukun2000/Adaptix, DraftRetriever/src and aded/model/utils.py.

The table has, for two tokens, weights of those that follow them: relative frequencies in a corpus, the best 12 of each
pair. Every search adds 0.04 to each trigram in the last 16 tokens, up to 3.0; nothing is normalised again. A Monte
Carlo tree search (150 roll-outs, sequences of 4 tokens with the last one of the text) gives the most visited 24
sequences; each goes on with its best successor, and those of most distinct tokens fall until there are `num_draft`.

| symbol | argument | default |
|---|---|---|
| corpus | corpus_file | null: an empty table, which the text fills; else a JSON list of documents, lists of token ids |
| | num_draft | 64 (the scripts; the code's default is 24), the size of a tree |
| | iterations, output | 150, 24 |
| | score_bug | false: the sum of weights along a roll-out; true: as released, which looks up the wrong token |
| tau | temperature | 0: greedy |

Deviations: the adaptation begins anew with every sample. The released table goes on from sample to sample, so that
what a sample costs hangs on those before it, on their order and on the batch; here a row's table is a function of its
text and of the lengths at which it was searched. Where nothing is found nothing is drafted, not token 100. Above
temperature 0 drafts stand by the keyed exact match; the released test favours drafts. Nothing follows a stop token.

Invariants: output equals plain decoding, sampled too; `nfe_draft` = 0; a call computes 1 + the tokens of its tree.
"""

from functools import cached_property

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.trees import MOST_NODES
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.policy import policy
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.records import Ledger
from harness.errors import at_least, within
from methods.autoregressive.trigrams import WORDS, Search, Table, adapted, read_corpus, trie

_MOST_ITERATIONS = 100_000
"""Each is some hundred steps of Python, for every round of every row."""

SEARCHED = "aded.searched_BL"
"""What is kept between rounds: the lengths at which the text was searched."""


@policy("method/drafter", "trigrams")
class TrigramDrafter:
    """Draft a tree of up to `num_draft` tokens that a search through adaptive trigrams finds."""

    corpus_file: str | None = None
    num_draft: int = 64
    iterations: int = 150
    output: int = 24
    score_bug: bool = False

    def __post_init__(self) -> None:
        at_least(1, output=self.output)
        within(1, MOST_NODES, num_draft=self.num_draft)
        within(1, _MOST_ITERATIONS, iterations=self.iterations)
        _ = self._table

    @cached_property
    def _table(self) -> Table:
        return {} if self.corpus_file is None else read_corpus(self.corpus_file)

    @property
    def nodes(self) -> int:
        """Return the largest number of tokens of a tree."""
        return self.num_draft

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return the tree of each row, of at most `limit_B` tokens one after the other."""
        length_B, device = sequences.length_B, sequences.tokens_BL.device
        searched_BL = sequences.memory.get(SEARCHED, torch.zeros_like(sequences.tokens_BL, dtype=torch.bool))
        searched_BL = searched_BL.scatter(1, length_B[:, None], (limit_B > 0)[:, None])
        sequences.memory[SEARCHED] = searched_BL
        drawn = uniforms(sequences.seed_B, length_B, "rollout", self.iterations * WORDS).view(len(length_B), -1, WORDS)
        trees: list[list[tuple[int, int]]] = []
        rows = zip(length_B.tolist(), limit_B.tolist(), sequences.tokens_BL.tolist(), strict=True)
        for row, (length, limit, tokens) in enumerate(rows):
            if length < 2 or not limit:
                trees.append([])
                continue
            uniform = drawn[row].tolist()
            search = Search(
                table=adapted(self._table, tokens[:length], searched_BL[row].nonzero().squeeze(1).tolist()),
                stop_ids=model.spec.stop_ids,
                iterations=self.iterations,
                output=self.output,
                draw=uniform.__getitem__,
                score_bug=self.score_bug,
            )
            found = search.sequences((tokens[length - 2], tokens[length - 1]))
            cut = dict.fromkeys(one[:limit] for one in found)
            trees.append(trie(list(cut), self.num_draft))
        return Proposal.of_trees(trees, [0] * len(trees), device)
