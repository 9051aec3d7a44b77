"""A random causal transformer behind the engine's interface, drafters to try on it, and plain AR to compare with."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Drafter, Proposal
from harness.engine.autoregressive.loop import decode
from harness.engine.autoregressive.method import AutoregressiveMethod, FixedLength
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.records import Ledger
from harness.models.embedded import EmbeddedModel, spec_of
from harness.models.feed_forward import Experts, Router
from harness.models.transformer import Attention, Transformer, TransformerConfig

VOCABULARY = 19
MIXTURE = Experts(count=4, active=2, width=16, router=Router.SOFTMAX, normalised=True)
PROMPTS = [[3], [5, 1, 4], [2, 7, 1, 8, 2, 8], [6, 6], [9, 1, 2, 3], [4, 4, 4], [1, 2], [8, 7, 6, 5, 4, 3, 2, 1, 0]]


def random_causal(
    *,
    stop_ids: tuple[int, ...] = (),
    seed: int = 0,
    vocabulary: int = VOCABULARY,
    layers: int = 2,
    experts: Experts | None = None,
) -> EmbeddedModel:
    """Return a small float64 transformer with random weights, the same for a seed."""
    config = TransformerConfig(
        vocab_size=vocabulary, width=16, layers=layers, heads=2, kv_heads=1, head_width=8, feed_forward_width=32,
        max_length=64, attention=Attention.CAUSAL, experts=experts,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        embedding_VC = torch.randn(config.vocab_size, config.width)
        transformer = Transformer(config)
        for name, weight in transformer.named_parameters():
            if experts is not None and weight.ndim == 3:
                torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
            elif name.endswith("router.weight"):
                torch.nn.init.normal_(weight)
        transformer.load_state_dict({"embedding.weight": embedding_VC}, strict=False)
        transformer = transformer.double().eval()
    return EmbeddedModel(transformer, replace(spec_of("random", config), stop_ids=stop_ids))


def alike(model: EmbeddedModel, *, noise: float = 0.1, vocabulary: int | None = None) -> EmbeddedModel:
    """Return a model whose weights differ a little, so that it often says the same; of another vocabulary by padding.

    Tokens that only it has are its favourites.
    """
    transformer, generator = copy.deepcopy(model.transformer), torch.Generator().manual_seed(1)
    config = transformer.config
    with torch.no_grad():
        for weight in transformer.parameters():
            weight += noise * weight.std() * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    if vocabulary is None:
        return EmbeddedModel(transformer, replace(model.spec, name="alike"))
    wider = Transformer.unset(replace(config, vocab_size=vocabulary)).double()
    weights = transformer.state_dict()
    for name in ("embedding.weight", "head.weight"):
        padding = max(0, vocabulary - config.vocab_size)
        weights[name] = torch.cat([weights[name][:vocabulary], 9 * torch.ones(padding, config.width)]).double()
    wider.load_state_dict(weights)
    return EmbeddedModel(wider.eval(), replace(model.spec, name="padded", vocab_size=vocabulary))


@torch.inference_mode()
def next_logits(model: EmbeddedModel, tokens: Sequence[int]) -> Tensor:
    """Return the logits [V] behind `tokens`, by a full forward."""
    return model.transformer(torch.tensor([tokens]))[0, -1]


def continue_greedily(model: EmbeddedModel, prompt: Sequence[int], count: int) -> tuple[int, ...]:
    """Return `count` tokens by an argmax loop of full forwards."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(next_logits(model, tokens).argmax()))
    return tuple(tokens[len(prompt) :])


@dataclass(frozen=True)
class Oracle:
    """Draft the known answers, `wrong_every` place of the answer changed (0: none)."""

    answers: Sequence[Sequence[int]]
    wrong_every: int = 0

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        tokens_BK = torch.zeros(sequences.num_rows, int(limit_B.max()), dtype=torch.int64)
        for row, sample in enumerate(sequences.sample_B.tolist()):
            start = int(sequences.length_B[row] - sequences.prompt_length_B[row])
            for k in range(int(limit_B[row])):
                wrong = self.wrong_every and (start + k) % self.wrong_every == 0
                tokens_BK[row, k] = (self.answers[sample][start + k] + bool(wrong)) % VOCABULARY
        return Proposal(tokens_BK=tokens_BK, count_B=limit_B)


@dataclass(frozen=True)
class RaggedNoise:
    """Draft random tokens, a random number of them, more than asked for."""

    generator: torch.Generator
    vocabulary: int = VOCABULARY

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        shape = (sequences.num_rows, int(limit_B.max()) + 2)
        return Proposal(
            tokens_BK=torch.randint(self.vocabulary, shape, generator=self.generator),
            count_B=torch.randint(shape[1] + 1, shape[:1], generator=self.generator),
        )


def drafters(answers: Sequence[Sequence[int]]) -> dict[str, Drafter]:
    """Return drafters from always right to always wrong."""
    return {
        "oracle": Oracle(answers),
        "half": Oracle(answers, wrong_every=3),
        "adversary": Oracle(answers, wrong_every=1),
        "noise": RaggedNoise(torch.Generator().manual_seed(5)),
    }


def with_drafts(acceptor: object, drafter: Drafter, length: int = 4) -> AutoregressiveMethod:
    """Return the method that drafts up to `length` tokens."""
    return AutoregressiveMethod(acceptor=acceptor, drafter=drafter, draft_length=FixedLength(length=length))


def run(
    model: LanguageModel, method: AutoregressiveMethod, prompts: Sequence[Sequence[int]], gen_length: int = 12,
    **arguments: object,
) -> list[Generation]:  # fmt: skip
    """Decode with seeds 100, 101, ... and a ledger of its own unless one is given."""
    arguments = {"ledger": Ledger(), "seeds": range(100, 100 + len(prompts))} | arguments
    return decode(model, method, prompts, gen_length=gen_length, **arguments)
