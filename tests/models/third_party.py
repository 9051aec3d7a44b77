"""Samplers as other projects publish them, for tests: each with the `generate` that a user would wrap around it."""

from typing import Any

import torch
import transformers
from torch import Tensor, nn

from harness.models import random as random_models
from harness.models.embedded import EmbeddedModel
from harness.models.tokenizer import IDS

MASK, EOS = IDS["<mask>"], IDS["<eos>"]


def load_masked(dtype: torch.dtype) -> nn.Module:
    """Return the network of `model=random_mdm`."""
    model = random_models.load(name="random_mdm", kind="masked_diffusion", seed=0, dtype=dtype).model
    assert isinstance(model, EmbeddedModel)
    return model.transformer


MASKED = load_masked(torch.float32)
"""The same network, made when the module is imported."""


@torch.no_grad()
def unmask(model: nn.Module, prompt: Tensor, gen_length: int, block: int, steps: int, mask: int, cfg: float) -> Tensor:
    """Fill masks block by block, each step those with the most probable best token (Nie et al., arXiv:2502.09992).

    `steps` are those of the whole response. Guidance puts the row without its prompt beside it in one call.
    """
    rows, start = prompt.shape
    canvas = torch.cat([prompt, torch.full((rows, gen_length), mask)], 1)
    steps = steps * block // gen_length
    for first in range(start, start + gen_length, block):
        for step in range(steps):
            quota = block // steps + (step < block % steps)
            masked = canvas == mask
            if cfg:
                hidden = canvas.clone()
                hidden[:, :start] = mask
                guided, free = _logits(model(torch.cat([canvas, hidden]))).chunk(2)
                logits = free + (cfg + 1) * (guided - free)
            else:
                logits = _logits(model(canvas))
            logits[..., mask] = -torch.inf
            best = logits.double().softmax(-1).max(-1)
            sure = best.values.masked_fill(~masked, -1)
            sure[:, first + block :] = -1
            places = sure.topk(quota, 1).indices
            canvas = canvas.scatter(1, places, best.indices.gather(1, places))
    return canvas


def _logits(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


def masked_diffusion(
    prompts: list[list[int]],
    gen_length: int,
    seeds: list[int],
    *,
    model: nn.Module = MASKED,
    block_length: int | None = None,
    steps: int | None = None,
    mask_id: int = MASK,
    cfg_scale: float = 0.0,
    remasking: str = "low_confidence",
) -> list[list[int]]:
    """Answer prompts of equal length together."""
    assert remasking == "low_confidence"
    canvas = unmask(
        model, torch.tensor(prompts), gen_length, block_length or gen_length, steps or gen_length, mask_id, cfg_scale
    )
    return canvas[:, len(prompts[0]) :].tolist()


def load_causal(path: str, dtype: torch.dtype, device: str) -> tuple[nn.Module, Any]:
    """Return the causal checkpoint in a folder, and its tokenizer, as its project would load them."""
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).eval()
    return model, transformers.PreTrainedTokenizerFast.from_pretrained(path)


def causal(
    prompts: list[list[int]], gen_length: int, seeds: list[int], *, model: Any, **settings: Any
) -> list[list[int]]:
    """Answer each prompt by transformers' own `generate`."""
    found = []
    for prompt in prompts:
        row = torch.tensor([prompt], device=model.device)
        made = model.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=gen_length, **settings)
        found.append(made[0, len(prompt) :].tolist())
    return found
