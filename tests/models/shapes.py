"""Small transformers with random weights, shared by the tests of models."""

import torch
from torch import Tensor

from harness.models.transformer import Attention, Transformer, TransformerConfig


def config(**changes: object) -> TransformerConfig:
    """Return a small shape with grouped queries; `changes` replace its fields."""
    shape: dict[str, object] = {
        "vocab_size": 48,
        "width": 32,
        "layers": 3,
        "heads": 4,
        "kv_heads": 2,
        "head_width": 8,
        "feed_forward_width": 56,
        "max_length": 40,
        "attention": Attention.FULL,
    }
    return TransformerConfig(**(shape | changes))  # type: ignore[arg-type]


def random_model(seed: int = 0, *, dtype: torch.dtype = torch.float32, **changes: object) -> Transformer:
    """Return a transformer in which every weight is random, norms and biases included."""
    model, generator = Transformer.unset(config(**changes)), torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        centre, spread = (1.0, 0.3) if "norm" in name else (0.0, 0.2)
        torch.nn.init.normal_(weight, centre, spread, generator=generator)
    return model.to(dtype).eval().requires_grad_(False)


def tokens(rows: int, length: int, seed: int = 0, vocab_size: int = 48) -> Tensor:
    """Return random ids [rows, length]."""
    return torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))
