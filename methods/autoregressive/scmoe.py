"""SCMoE: what a mixture of experts says by its own routing, against what it says by a weak one.

Paper: Shi et al., NeurIPS 2024, arXiv:2405.14507; released code: DavidFanzz/SCMoE, decodingmethod/moe_utils.py.

Two passes read the same text, each with keys and values of its own, also for the prompt: z_s by the strong routing, z_w
by the weak one, which applies experts of other ranks. Of the tokens v with z_s(v) >= max z_s + ln alpha the one with
the largest (1 + beta) z_s(v) - beta z_w(v) is next, or one drawn from the softmax of it.

| symbol | argument | default |
|---|---|---|
| strong | strong_ranks | none: the experts that the model's own routing takes |
| weak | weak_ranks | [1]: the second-best expert alone ("rank-k routing", k = 2) |
| | weak_routing | `ranks`; or `random`, one expert for every position and layer; or `dynamic` |
| | dynamic_threshold | 0.6: `dynamic` has the fewest of the best experts that are together more probable |
| alpha | alpha | 0.1 |
| beta | beta | 0.5 (searched in 0.1, 0.3, ..., 0.9) |
| tau_s, tau_w | strong_temperature, weak_temperature | 1, 1 |
| | sample | false: the largest; true: a draw |
| | batched | false: two calls; true: one of two rows |

Ranks count from 0. Weights of the chosen experts add up to 1 where those of the model's own choice do; experts that are
shared stay on. A random expert has the weight 1, and is drawn by the row's seed, position and layer: for every token
once, whatever is read again. Raw logits are contrasted: constants of log softmax change no order. Deviation: answers
may end with a stop token, which the released code forbids unless told otherwise.

A token takes two calls, one after the other (the release calls twice, too), the prompt as well; with `batched` one call
of two rows, which uses an expert once for both.
Invariants: beta = 0, alpha = 1, or equal routings give greedy decoding; strong ranks 0 to K - 1 of a model that uses K
experts are its own.
"""

import math
from collections.abc import Mapping
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal, Verdict
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.windows import Window, ask
from harness.engine.shared.model import LanguageModel, Part
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction, leading
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.records import Ledger, Role
from harness.engine.shared.routing import Routing
from harness.engine.shared.sampling import invert
from harness.errors import FieldError

STORE = "scmoe"
"""What is kept: keys and values of the weak pass."""


def _fit(name: str, ranks: tuple[int, ...], experts: int) -> None:
    if not experts:
        raise FieldError(name, list(ranks), "be empty for a model without a mixture of experts; use model=tiny_moe")
    if max(ranks) >= experts:
        raise FieldError(name, list(ranks), f"be ranks from 0 to {experts - 1}, as there are {experts} experts")


def _check(name: str, ranks: tuple[int, ...]) -> None:
    if len(set(ranks)) < len(ranks) or min(ranks, default=0) < 0:
        raise FieldError(name, list(ranks), "be different ranks from 0, the best expert")


@policy("method/layers", "routing")
class Routed:
    """Have a target's mixtures take the experts of some `ranks` in every call; none: those that they would."""

    ranks: tuple[int, ...] = ()
    of_draft: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check("ranks", self.ranks)

    def fit_layers(self, layers: int) -> None:
        """Accept any number of layers."""

    def fit_experts(self, experts: int) -> None:
        """Raise FieldError for ranks that mixtures of so many experts do not have."""
        if self.ranks:
            _fit("ranks", self.ranks, experts)

    def part(self, role: Role, layers: int) -> Part | None:
        """Return all layers, routed; None where nothing is to be changed."""
        return Part(routing=Routing(ranks=self.ranks)) if self.ranks else None


class WeakRouting(Enum):
    """What the weak pass has instead of the mixtures' own choice."""

    ranks = "ranks"
    random = "random"
    dynamic = "dynamic"


@policy("method/acceptor", "self_contrast")
class SelfContrast:
    """Take the token that the strong routing prefers most against the weak one; see the module."""

    weak_ranks: tuple[int, ...] = (1,)
    weak_routing: WeakRouting = WeakRouting.ranks
    dynamic_threshold: float = 0.6
    alpha: float = 0.1
    beta: float = 0.5
    strong_temperature: float = 1.0
    weak_temperature: float = 1.0
    sample: bool = False
    batched: bool = False
    judges_drafts: ClassVar[bool] = False
    of_draft: ClassVar[bool] = False
    # The weak pass runs all layers.
    goes_with: ClassVar[Mapping[str, tuple[str, ...]]] = {"layers": ("all", "routing")}

    def __post_init__(self) -> None:
        _check("weak_ranks", self.weak_ranks)
        if not self.weak_ranks:
            raise FieldError("weak_ranks", [], "name at least one rank, 0 being the best expert")
        if not 0 < self.dynamic_threshold < 1:
            raise FieldError("dynamic_threshold", self.dynamic_threshold, "lie in (0, 1); 1 would take all experts")
        if not 0 < self.alpha <= 1:
            raise FieldError("alpha", self.alpha, "lie in (0, 1]")
        if self.beta < 0:
            raise FieldError("beta", self.beta, "be at least 0, which contrasts nothing")
        for name in ("strong_temperature", "weak_temperature"):
            if getattr(self, name) <= 0:
                raise FieldError(name, getattr(self, name), "be above 0")

    @property
    def twins(self) -> bool:
        """Say whether both passes are one call."""
        return self.batched

    @property
    def calls_beside(self) -> int:
        """Return how many calls a token takes beside the loop's."""
        return 0 if self.batched else 1

    def fit_layers(self, layers: int) -> None:
        """Accept any number of layers."""

    def fit_experts(self, experts: int) -> None:
        """Raise FieldError for ranks that mixtures of so many experts do not have."""
        if self.weak_routing is WeakRouting.ranks:
            _fit("weak_ranks", self.weak_ranks, experts)
        elif not experts:
            must = "be of a model with a mixture of experts; use model=tiny_moe"
            raise FieldError("weak_routing", self.weak_routing.value, must)

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        """Return the most probable token by the strong routing alone."""
        return self._verdict(prediction.logits_NV, prediction, sequences)

    def judge(
        self, model: LanguageModel, prediction: Prediction, proposal: Proposal, sequences: Sequences, ledger: Ledger
    ) -> Verdict:
        """Return the token of the contrast, after a call of the weak routing that reads what the strong one did."""
        return self.weigh(prediction, self._weak(model, sequences, ledger), sequences)

    def twin(self, sequences: Sequences, layers: int) -> Routing | None:
        """Return the weak routing where both passes are one call."""
        return self._routing(sequences, layers) if self.batched else None

    def weigh(self, prediction: Prediction, twin: Prediction, sequences: Sequences) -> Verdict:
        """Return the token of the contrast; `twin` is what the weak routing predicts."""
        strong_NV = prediction.logits_NV / self.strong_temperature
        weak_NV = twin.logits_NV / self.weak_temperature
        valid_NV = strong_NV >= strong_NV.amax(-1, keepdim=True) + math.log(self.alpha)
        contrast_NV = torch.where(valid_NV, (1 + self.beta) * strong_NV - self.beta * weak_NV, -torch.inf)
        return self._verdict(contrast_NV, prediction, sequences)

    def _weak(self, model: LanguageModel, sequences: Sequences, ledger: Ledger) -> Prediction:
        if STORE not in sequences.stores:
            sequences.stores[STORE] = model.new_store(*sequences.tokens_BL.shape)
        window = Window(
            tokens_BL=sequences.tokens_BL,
            start_B=sequences.computed_B,
            end_B=sequences.length_B,
            read_B=sequences.length_B - 1,
            store=sequences.stores[STORE],
            part=Part(routing=self._routing(sequences, model.spec.layers)),
        )
        begins = not bool(sequences.computed_B.any())
        return ask(model, window, sequences, ledger, Role.PREFILL if begins else Role.TARGET)

    def _routing(self, sequences: Sequences, layers: int) -> Routing:
        """Return what the weak pass has of the positions that a call computes."""
        if self.weak_routing is WeakRouting.ranks:
            return Routing(ranks=self.weak_ranks)
        if self.weak_routing is WeakRouting.dynamic:
            return Routing(mass=self.dynamic_threshold)
        width = int((sequences.length_B - sequences.computed_B).max())
        position_BT = sequences.computed_B[:, None] + torch.arange(width, device=sequences.length_B.device)
        seed_N = sequences.seed_B.repeat_interleave(width)
        uniform_NL = uniforms(seed_N, position_BT.flatten(), "experts", layers)
        return Routing(uniform_BTL=uniform_NL.view(-1, width, layers))

    def _verdict(self, logits_BV: Tensor, prediction: Prediction, sequences: Sequences) -> Verdict:
        if not self.sample:
            token_B, gap_B = leading(logits_BV)
            return Verdict(accepted_B=torch.zeros_like(token_B), token_B=token_B, token_gap_BT=gap_B[:, None])
        uniform_B = uniforms(sequences.seed_B, prediction.position_N, "token", 1).squeeze(1)
        token_B = invert(logits_BV.double().softmax(-1), uniform_B)
        return Verdict(accepted_B=torch.zeros_like(token_B), token_B=token_B)
