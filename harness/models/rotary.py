"""Rotary positions: the channels of a head, in pairs, turned by angles that grow with the position (RoFormer, eq. 34).

Shapes: B rows, T positions, H heads, D head width, S positions of the tables.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """Angles of absolute positions, in tables that stay float32 whatever dtype the model is converted to."""

    cos_SD: Tensor
    sin_SD: Tensor

    def __init__(self, width: int, theta: float, length: int, *, in_float32: bool) -> None:
        """Take the channels to rotate, the base of their frequencies and the longest sequence.

        In models of low precision the tables are float32 with `in_float32`, and of the model's dtype without.
        """
        super().__init__()
        self.width, self.theta, self.length, self.in_float32 = width, theta, length, in_float32
        self._build(torch.device("cpu"))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Rotary":
        """Compute the tables anew where `nn.Module` moves, converts or materialises them.

        A table rounded to bfloat16 is the largest error a conversion can make, and buffers materialised from the
        meta device hold garbage.
        """
        super()._apply(fn, recurse)
        self._build(self.cos_SD.device)
        return self

    def _build(self, device: torch.device) -> None:
        half = torch.arange(0, self.width, 2, device=device).float() / self.width
        inverse = 1.0 / self.theta**half
        angles = torch.arange(self.length, device=device).float()[:, None] * inverse
        cos, sin = angles.cos(), angles.sin()
        self.register_buffer("cos_SD", torch.cat([cos, cos], -1), persistent=False)
        self.register_buffer("sin_SD", torch.cat([-sin, sin], -1), persistent=False)

    def tables(self, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cos and sin [B, T, 1, D], sin negative for the first half, in float32 or the model's dtype."""
        cos, sin = self.cos_SD[positions_BT].unsqueeze(2), self.sin_SD[positions_BT].unsqueeze(2)
        low = dtype in (torch.float16, torch.bfloat16)
        return (cos, sin) if low and self.in_float32 else (cos.to(dtype), sin.to(dtype))


def rotate(x_BTHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate as many of the first channels as the tables have, in half-split form, in the dtype of `x_BTHD`."""
    width = cos.shape[-1]
    if width < x_BTHD.shape[-1]:
        return torch.cat([rotate(x_BTHD[..., :width], cos, sin), x_BTHD[..., width:]], -1)
    return (x_BTHD * cos + x_BTHD.roll(width // 2, -1) * sin).to(x_BTHD.dtype)
