"""Training of the embedded models: three objectives, one loop, Muon for matrices and AdamW for the rest.

Losses follow LLaDA (arXiv 2502.09992, Eq. 3: cross-entropy of masked tokens weighted by 1/t) and block diffusion
(arXiv 2503.09573: a noisy block sees itself and the clean blocks before it). The number of masked positions is drawn
instead of each position's mask: the same expectation (LLaDA, Eq. 14), with less variance.
Shapes: B rows, P prompt, G answer; of a mixture, N positions, E experts.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.engine.shared.model import ForwardRequest, Part, Taps
from harness.errors import ConfigError
from harness.models.feed_forward import MixtureOfExperts
from harness.models.transformer import Attention, Transformer, TransformerConfig

_SMALLEST_LEVEL = 1e-6


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast to train; everything but the data that decides the weights.

    `learning_rate` is the peak of a linear warm-up and a cosine decay to zero, used for both optimisers (Muon
    updates are rescaled to the size of AdamW's). `exits` weighs the loss of reading earlier layers of a causal model,
    `balance` that of a mixture whose experts are not used alike.
    """

    steps: int
    rows: int = 96
    learning_rate: float = 5e-3
    warmup_steps: int = 200
    weight_decay: float = 0.01
    gradient_norm: float = 1.0
    seed: int = 0
    exits: float = 0.0
    balance: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rows < 1:
            raise ConfigError(f"steps and rows must be at least 1, got {self.steps} and {self.rows}")
        if self.exits < 0:
            raise ConfigError(f"exits={self.exits}: must be at least 0 (0 trains the last layer alone)")
        if self.balance < 0:
            raise ConfigError(f"balance={self.balance}: must be at least 0 (0 leaves experts to the loss of tokens)")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step counted from 0."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True, kw_only=True)
class Text:
    """What an objective must know of the data: where answers begin and which ids are special."""

    prompt_length: int
    mask_id: int
    eos_id: int


Loss = Callable[[Transformer, Tensor, Text, torch.Generator], Tensor]


def _masked(groups: tuple[int, ...], width: int, generator: torch.Generator) -> Tensor:
    """Mask a uniformly drawn number, 1 to `width`, of the positions of every group: bool [*groups, width].

    Numbers are stratified over the batch, so that every batch covers all levels, which calms the gradient.
    """
    count = math.prod(groups)
    strata = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    level = (_SMALLEST_LEVEL + (1 - _SMALLEST_LEVEL) * strata).view(groups)
    rank = torch.rand(*groups, width, generator=generator).argsort(-1).argsort(-1)
    return rank < (level * width).ceil()[..., None]


def _weighted_loss(logits_NV: Tensor, answers_BG: Tensor, masked_BG: Tensor, weight_BG: Tensor) -> Tensor:
    loss_N = F.cross_entropy(logits_NV, answers_BG[masked_BG], reduction="none")
    return (loss_N * weight_BG[masked_BG]).sum() / answers_BG.numel()


def _flat(masked_BG: Tensor, width: int, offset: int) -> Tensor:
    """Return flat indices into [B, width] of the masked answer positions, which start at `offset`."""
    row_N, place_N = masked_BG.nonzero(as_tuple=True)
    return row_N * width + offset + place_N


def masked_diffusion_loss(model: Transformer, rows_BT: Tensor, text: Text, generator: torch.Generator) -> Tensor:
    """Return the mean over B*G of the masked tokens' cross-entropy weighted by 1/t, t the masked share."""
    answers_BG = rows_BT[:, text.prompt_length :]
    masked_BG = _masked((rows_BT.shape[0],), answers_BG.shape[1], generator)
    noisy_BT = torch.cat([rows_BT[:, : text.prompt_length], answers_BG.masked_fill(masked_BG, text.mask_id)], 1)
    logits_NV = model.logits(ForwardRequest(noisy_BT, select_N=_flat(masked_BG, rows_BT.shape[1], text.prompt_length)))
    weight_BG = (1 / masked_BG.float().mean(1, keepdim=True)).expand_as(masked_BG)
    return _weighted_loss(logits_NV, answers_BG, masked_BG, weight_BG)


def block_diffusion_loss(model: Transformer, rows_BT: Tensor, text: Text, generator: torch.Generator) -> Tensor:
    """Return the masked loss with one masked share per block; clean tokens first, then the noisy copy of the answer."""
    block = model.config.block_length
    assert block is not None and text.prompt_length % block == 0, "answers must start at a block's first position"
    answers_BG = rows_BT[:, text.prompt_length :]
    B, G = answers_BG.shape
    masked_BKW = _masked((B, G // block), block, generator)
    masked_BG = masked_BKW.view(B, G)
    noisy_BG = answers_BG.masked_fill(masked_BG, text.mask_id)
    places = torch.arange(rows_BT.shape[1])
    positions = torch.cat([places, places[text.prompt_length :]])
    noisy = torch.arange(len(positions)) >= rows_BT.shape[1]
    block_of = positions // block
    visible = torch.where(
        noisy[None, :],
        noisy[:, None] & (block_of[None, :] == block_of[:, None]),
        block_of[None, :] < block_of[:, None] + (~noisy[:, None]).long(),
    )
    logits_NV = model.logits(
        ForwardRequest(
            torch.cat([rows_BT, noisy_BG], 1),
            positions_BT=positions.expand(B, -1),
            visible_BTS=visible[None],
            structured=False,
            select_N=_flat(masked_BG, len(positions), rows_BT.shape[1]),
        )
    )
    weight_BG = (1 / masked_BKW.float().mean(-1)).repeat_interleave(block, 1)
    return _weighted_loss(logits_NV, answers_BG, masked_BG, weight_BG)


def causal_loss(model: Transformer, rows_BT: Tensor, text: Text, generator: torch.Generator) -> Tensor:
    """Return the mean cross-entropy of the answer's tokens up to and including the first end token."""
    return causal_exits_loss(model, rows_BT, text, generator, exits=0.0)


def causal_exits_loss(
    model: Transformer, rows_BT: Tensor, text: Text, generator: torch.Generator, *, exits: float
) -> Tensor:
    """Return the causal loss and `exits` times that of reading each earlier layer, weighted by its depth.

    LayerSkip's early-exit loss (arXiv:2404.16710, section 4.1.2), all layers at once, without layer dropout.
    """
    answers_BG = rows_BT[:, text.prompt_length :]
    ended_BG = (answers_BG == text.eos_id).cumsum(1)
    read_BG = (ended_BG == 0) | ((ended_BG == 1) & (answers_BG == text.eos_id))
    select_N, answers_N = _flat(read_BG, rows_BT.shape[1], text.prompt_length - 1), answers_BG[read_BG]
    taps = Taps(range(1, model.config.layers) if exits else ())
    request = ForwardRequest(rows_BT, select_N=select_N, part=Part(taps=taps))
    loss = F.cross_entropy(model.logits(request), answers_N)
    for depth, x_BTC in taps.states.items():
        early_NV = model.read(request.selected(x_BTC))
        loss = loss + exits * depth / sum(taps.depths) * F.cross_entropy(early_NV, answers_N)
    return loss


OBJECTIVES: dict[Attention, Loss] = {
    Attention.FULL: masked_diffusion_loss,
    Attention.BLOCK_CAUSAL: block_diffusion_loss,
    Attention.CAUSAL: causal_loss,
}


def initialise(config: TransformerConfig, seed: int) -> Transformer:
    """Return a transformer with random weights that depend on `config` and `seed` only."""
    model, generator = Transformer.unset(config), torch.Generator().manual_seed(seed)
    residual = 1 / math.sqrt(2 * config.layers)
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            torch.nn.init.constant_(weight, 0.0 if name.endswith("bias") else 1.0)
            continue
        scale = 0.02 if name.startswith(("embedding", "head")) else weight.shape[-1] ** -0.5
        scale *= residual if name.endswith(("attention.out.weight", "down.weight", "feed_forward.down")) else 1.0
        torch.nn.init.normal_(weight, std=scale, generator=generator)
    return model


@contextmanager
def balanced(model: Transformer) -> Iterator[Callable[[], Tensor]]:
    """Watch the mixtures of a model's layers; yield what says how unevenly experts were used since it last said it.

    It is the load-balancing loss of Switch Transformers (arXiv:2101.03961, Eq. 4) for several experts per position, the
    mean over layers: 1 where all are used alike, the number of experts where a position's choice is always the same.
    """
    said: list[Tensor] = []

    def see(mixture: MixtureOfExperts, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        p_NE = mixture.router(arguments[0].flatten(0, -2)).softmax(-1)
        chosen_NK = p_NE.topk(mixture.experts.active, -1).indices
        share_E = torch.zeros_like(p_NE).scatter(-1, chosen_NK, 1.0).mean(0) / mixture.experts.active
        said.append(mixture.experts.count * (share_E * p_NE.mean(0)).sum())

    def take() -> Tensor:
        uneven = torch.stack(said).mean()
        said.clear()
        return uneven

    mixtures = [one for one in model.modules() if isinstance(one, MixtureOfExperts)]
    hooks = [mixture.register_forward_hook(see) for mixture in mixtures]
    try:
        yield take
    finally:
        for hook in hooks:
            hook.remove()


def _optimisers(model: Transformer, recipe: Recipe) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and n.startswith("blocks")]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or not n.startswith("blocks")]
    return [
        torch.optim.Muon(matrices, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def train(
    config: TransformerConfig,
    recipe: Recipe,
    text: Text,
    batches: Iterator[np.ndarray],
    report: Callable[[int, float], None],
    initial: Transformer | None = None,
) -> Transformer:
    """Return a trained model; `report(step, loss)` is called after every step.

    `initial` gives the weights to start from, those of a model with the same shape and any attention; without it
    they are random.
    """
    model = initialise(config, recipe.seed)
    if initial is not None:
        model.load_state_dict(initial.state_dict())
    model.train()
    optimisers = _optimisers(model, recipe)
    objective = partial(causal_exits_loss, exits=recipe.exits) if recipe.exits else OBJECTIVES[config.attention]
    generator = torch.Generator().manual_seed(recipe.seed + 1)
    with balanced(model) as unevenness:
        for step in range(recipe.steps):
            loss = objective(model, torch.from_numpy(next(batches)), text, generator)
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"the loss is {loss.item()} at step {step}: lower learning_rate")
            weighed = loss + recipe.balance * unevenness() if recipe.balance else loss
            weighed.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = recipe.rate(step)
                optimiser.step()
                optimiser.zero_grad()
            report(step + 1, loss.item())
    return model.eval()
