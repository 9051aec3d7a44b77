"""Training of the embedded models: three objectives, one loop, Muon for matrices and AdamW for the rest.

Losses follow LLaDA (arXiv 2502.09992, Eq. 3: cross-entropy of masked tokens weighted by 1/t) and block diffusion
(arXiv 2503.09573: a noisy block sees itself and the clean blocks before it). Shapes: B rows, P prompt, G answer.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import ConfigError
from harness.models.transformer import Attention, Transformer, TransformerConfig

_SMALLEST_T = 0.02


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast to train; everything but the data that decides the weights.

    `learning_rate` is the peak of a linear warm-up and a cosine decay to zero, used for both optimisers (Muon
    updates are rescaled to the size of AdamW's).
    """

    steps: int
    rows: int = 96
    learning_rate: float = 5e-3
    warmup_steps: int = 200
    weight_decay: float = 0.01
    gradient_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rows < 1:
            raise ConfigError(f"steps and rows must be at least 1, got {self.steps} and {self.rows}")

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


def _noise_levels(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw t in (0.02, 1), stratified over the batch: every batch covers all levels, which calms the gradient."""
    count = math.prod(shape)
    strata = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    return (_SMALLEST_T + (1 - _SMALLEST_T) * strata).view(shape)


def _mask(t: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Mask each of the `width` positions of a group with probability t, and always at least one."""
    draw = torch.rand(*t.shape, width, generator=generator)
    return (draw < t[..., None]) | (draw == draw.amin(-1, keepdim=True))


def _weighted_loss(logits_NV: Tensor, answers_BG: Tensor, masked_BG: Tensor, weight_BG: Tensor) -> Tensor:
    loss_N = F.cross_entropy(logits_NV, answers_BG[masked_BG], reduction="none")
    return (loss_N * weight_BG[masked_BG]).sum() / answers_BG.numel()


def _flat(masked_BG: Tensor, width: int, offset: int) -> Tensor:
    """Return flat indices into [B, width] of the masked answer positions, which start at `offset`."""
    row_N, place_N = masked_BG.nonzero(as_tuple=True)
    return row_N * width + offset + place_N


def masked_diffusion_loss(model: Transformer, rows_BT: Tensor, text: Text, generator: torch.Generator) -> Tensor:
    """Return the mean over B*G of the masked tokens' cross-entropy weighted by 1/t."""
    answers_BG = rows_BT[:, text.prompt_length :]
    t_B = _noise_levels((rows_BT.shape[0],), generator)
    masked_BG = _mask(t_B, answers_BG.shape[1], generator)
    noisy_BT = torch.cat([rows_BT[:, : text.prompt_length], answers_BG.masked_fill(masked_BG, text.mask_id)], 1)
    logits_NV = model(noisy_BT, select_N=_flat(masked_BG, rows_BT.shape[1], text.prompt_length))
    return _weighted_loss(logits_NV, answers_BG, masked_BG, (1 / t_B)[:, None].expand_as(masked_BG))


def block_diffusion_loss(model: Transformer, rows_BT: Tensor, text: Text, generator: torch.Generator) -> Tensor:
    """Return the masked loss with one t per block; clean tokens first, then the noisy copy of the answer."""
    block = model.config.block_length
    assert block is not None and text.prompt_length % block == 0, "answers must start at a block's first position"
    answers_BG = rows_BT[:, text.prompt_length :]
    B, G = answers_BG.shape
    t_BK = _noise_levels((B, G // block), generator)
    masked_BG = _mask(t_BK, block, generator).view(B, G)
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
    logits_NV = model(
        torch.cat([rows_BT, noisy_BG], 1),
        positions_BT=positions.expand(B, -1),
        visible_BTS=visible[None],
        structured=False,
        select_N=_flat(masked_BG, len(positions), rows_BT.shape[1]),
    )
    return _weighted_loss(logits_NV, answers_BG, masked_BG, (1 / t_BK).repeat_interleave(block, 1))


def causal_loss(model: Transformer, rows_BT: Tensor, text: Text, generator: torch.Generator) -> Tensor:
    """Return the mean cross-entropy of the answer's tokens up to and including the first end token."""
    answers_BG = rows_BT[:, text.prompt_length :]
    ended_BG = (answers_BG == text.eos_id).cumsum(1)
    read_BG = (ended_BG == 0) | ((ended_BG == 1) & (answers_BG == text.eos_id))
    logits_NV = model(rows_BT, select_N=_flat(read_BG, rows_BT.shape[1], text.prompt_length - 1))
    return F.cross_entropy(logits_NV, answers_BG[read_BG])


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
        scale = 0.02 if name.startswith(("embedding", "head")) else weight.shape[1] ** -0.5
        scale *= residual if name.endswith(("attention.out.weight", "down.weight")) else 1.0
        torch.nn.init.normal_(weight, std=scale, generator=generator)
    return model


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
) -> Transformer:
    """Train from scratch and return the model; `report(step, loss)` is called after every step."""
    model = initialise(config, recipe.seed)
    optimisers = _optimisers(model, recipe)
    objective = OBJECTIVES[config.attention]
    generator = torch.Generator().manual_seed(recipe.seed + 1)
    for step in range(recipe.steps):
        loss = objective(model, torch.from_numpy(next(batches)), text, generator)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}: lower learning_rate")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(step)
            optimiser.step()
            optimiser.zero_grad()
        report(step + 1, loss.item())
    return model.eval()
