"""The largest of many numbers, and where it stands, in passes that a processor takes many numbers of at once.

A maximum that is told its place, and a selection of the best two, look at one number after the other: of 32,768 logits
they take ten and twenty times as long as a maximum. Shapes: any rows, V numbers of each, K parts of these.
"""

import torch
from torch import Tensor

from harness.engine.shared.indexing import positions

_PART, _MANY = 128, 1 << 12
"""So many numbers make a part, of rows that have so many at least."""


def largest(x_V: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest number of each row, and the place of the first that is it, [..., 1] each; NaN is above all."""
    if _at_once(x_V):
        return x_V.max(-1, keepdim=True)
    most_1, part_1 = _parts(x_V).max(-1, keepdim=True)
    start_1, beside_P = _beside(x_V, part_1)
    return most_1, start_1 + beside_P.argmax(-1, keepdim=True)


def at_largest(x_V: Tensor) -> Tensor:
    """Return the place of the largest number of each row, the first of equals, [...]."""
    return x_V.argmax(-1) if _at_once(x_V) else largest(x_V)[1][..., 0]


def two_largest(x_V: Tensor) -> Tensor:
    """Return the two largest numbers of each row, the larger one first, [..., 2]."""
    if _at_once(x_V):
        return x_V.topk(2, dim=-1).values
    of_parts_2, part_2 = _parts(x_V).topk(2, dim=-1)
    within_2 = _beside(x_V, part_2[..., :1])[1].topk(2, dim=-1).values
    return torch.stack([of_parts_2[..., 0], torch.maximum(of_parts_2[..., 1], within_2[..., 1])], -1)


def _at_once(x_V: Tensor) -> bool:
    """Say whether parts would not pay: a GPU looks at many numbers at once anyway."""
    return x_V.is_cuda or x_V.shape[-1] < _MANY


def _parts(x_V: Tensor) -> Tensor:
    """Return the largest number of each part."""
    width = x_V.shape[-1]
    whole = width // _PART * _PART
    parts_K = x_V[..., :whole].unflatten(-1, (-1, _PART)).amax(-1)
    return parts_K if whole == width else torch.cat([parts_K, x_V[..., whole:].amax(-1, keepdim=True)], -1)


def _beside(x_V: Tensor, part_1: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a part begins, and its numbers: of a shorter last part, with those before it.

    These are smaller than the largest, or their part would have come first.
    """
    start_1 = (part_1 * _PART).clamp(max=x_V.shape[-1] - _PART)
    return start_1, x_V.gather(-1, start_1 + positions(_PART, x_V.device))
