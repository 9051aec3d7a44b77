"""Drafters of trees to try on the loop: random, always wrong, always right, and drawn from a law by each rule."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch

from harness.engine.autoregressive.drafting import Proposal
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.trees import Node
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.records import Ledger
from harness.engine.shared.sampling import invert
from tests.engine.causal import VOCABULARY


def packed(rows: Sequence[Sequence[Node]], beside: Sequence[int] | None = None) -> Proposal:
    """Return a proposal of trees; of each row's nodes the last `beside` are no drafts."""
    return Proposal.of_trees(rows, [0] * len(rows) if beside is None else beside, torch.device("cpu"))


@dataclass(frozen=True)
class Grown:
    """Draft trees of random shapes; the true answer is in them if `right`, tokens that are not in it if not."""

    answers: Sequence[Sequence[int]]
    right: bool = True
    noise: bool = True
    nodes: int = 12

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: torch.Tensor, ledger: Ledger) -> Proposal:
        return packed([self._tree(sequences, row, int(limit_B[row])) for row in range(sequences.num_rows)])

    def _tree(self, sequences: Sequences, row: int, limit: int) -> list[Node]:
        length, sample = int(sequences.length_B[row]), int(sequences.sample_B[row])
        chance = torch.Generator().manual_seed(97 * sample + length)
        ahead = self.answers[sample][length - int(sequences.prompt_length_B[row]) :]
        tree: list[Node] = []
        if self.noise:
            for node in range(int(torch.randint(self.nodes // 2, (), generator=chance))):
                parent, token = (int(torch.randint(n, (), generator=chance)) for n in (node + 1, VOCABULARY))
                wrong = token if token not in ahead else next(t for t in range(VOCABULARY) if t not in ahead)
                tree.append((parent - 1, token if self.right else wrong))
        if self.right:
            at = -1
            for token in ahead[: min(limit, self.nodes - len(tree))]:
                tree.append((at, token))
                at = len(tree) - 1
        return tree


@dataclass(frozen=True)
class Empty:
    """Draft trees without a node."""

    nodes: int = 3

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: torch.Tensor, ledger: Ledger) -> Proposal:
        return packed([[] for _ in range(sequences.num_rows)])


class Siblings(Enum):
    """How siblings are drawn."""

    CERTAIN = "certain"
    WITHOUT_REPLACEMENT = "without replacement"
    INDEPENDENT = "independent"


@dataclass(frozen=True)
class Drawn:
    """Draft a tree of shape `parents`, children drawn from a law that hangs on their parent's token alone."""

    laws_VV: torch.Tensor
    parents: tuple[int, ...]
    rule: Siblings

    @property
    def nodes(self) -> int:
        return len(self.parents)

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: torch.Tensor, ledger: Ledger) -> Proposal:
        rows, width = sequences.num_rows, len(self.parents)
        last_B = sequences.tokens_BL.gather(1, sequences.length_B[:, None] - 1)[:, 0]
        uniform_BK = uniforms(sequences.seed_B, sequences.length_B, "tree", width)
        tokens_BK = torch.zeros(rows, width, dtype=torch.int64)
        laws = []
        for k, parent in enumerate(self.parents):
            q_BV = self.laws_VV[last_B if parent < 0 else tokens_BK[:, parent]]
            laws.append(q_BV)
            if self.rule is not Siblings.INDEPENDENT:
                for sibling in (s for s in range(k) if self.parents[s] == parent):
                    q_BV = q_BV.scatter(1, tokens_BK[:, sibling, None], 0)
            certain = self.rule is Siblings.CERTAIN
            tokens_BK[:, k] = q_BV.argmax(1) if certain else invert(q_BV, uniform_BK[:, k])
        return Proposal(
            tokens_BK=tokens_BK,
            count_B=torch.full((rows,), width),
            probabilities_BKV=None if self.rule is Siblings.CERTAIN else torch.stack(laws, 1),
            parent_BK=torch.tensor(self.parents).repeat(rows, 1),
            independent=self.rule is Siblings.INDEPENDENT,
        )
