"""Tensors whose dimensions count positions: what becomes of them when positions are added or move.

Shapes: B rows, L positions.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


def alike(change: Callable[..., Tensor], *parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what `change` makes of the tensors of one name in all parts, which it treats row by row.

    Numbers of a row that have one dtype go through it together: twenty operations cost twenty times what one does.
    """
    kinds: dict[tuple[torch.dtype, int], list[str]] = {}
    for name, tensor in parts[0].items():
        kinds.setdefault((tensor.dtype, tensor.dim()), []).append(name)
    made: dict[str, Tensor] = {}
    for (_, dims), names in kinds.items():
        if dims > 1:
            made |= {name: change(*(part[name] for part in parts)) for name in names}
        else:
            together = change(*_stacked([[part[name] for name in names] for part in parts]))
            made |= dict(zip(names, together.unbind(1), strict=True))
    return made


def _stacked(parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return the tensors of each part, [B] each, side by side; parts of the same tensors share what is made of them."""
    made: list[Tensor] = []
    for number, part in enumerate(parts):
        same = number and all(one is other for one, other in zip(part, parts[number - 1], strict=True))
        made.append(made[-1] if same else torch.stack([*part], 1))
    return made


def moved(tensor: Tensor, dim: int, at_B: Tensor, count_B: Tensor, new: float | int) -> Tensor:
    """Return `tensor` with what stands at `at_B` or behind it moved by `count_B` along `dim`; the end falls off."""
    index_L = torch.arange(tensor.shape[dim], device=tensor.device)
    at_B1, behind_B1 = at_B[:, None], (at_B + count_B)[:, None]
    source_BL = torch.where(index_L >= behind_B1, index_L - count_B[:, None], index_L)
    new_BL = (index_L >= at_B1) & (index_L < behind_B1)
    spread = [tensor.shape[0], *[1] * (dim - 1), tensor.shape[dim], *[1] * (tensor.ndim - dim - 1)]
    return tensor.gather(dim, source_BL.view(spread).expand_as(tensor)).masked_fill(new_BL.view(spread), new)


def spread(rows_B: Tensor, like: Tensor) -> Tensor:
    """Return `rows_B` with as many dimensions as `like`, one number for all of a row."""
    return rows_B.view(-1, *[1] * (like.ndim - 1))


def levelled(parts: Sequence[Tensor]) -> list[Tensor]:
    """Return parts that have as many entries per row as the widest of them, with zeros behind those of the others."""
    width = max((part.shape[1] for part in parts if part.dim() > 1), default=0)
    return [behind(part, 1, width) if part.dim() > 1 else part for part in parts]


def behind(part: Tensor, dim: int, size: int) -> Tensor:
    """Return `part` with zeros behind its end along `dim`, so that it has at least `size` entries there."""
    extra = size - part.shape[dim]
    if extra <= 0:
        return part
    return torch.cat([part, part.new_zeros(*part.shape[:dim], extra, *part.shape[dim + 1 :])], dim)
