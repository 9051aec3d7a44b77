"""Where prompts, masks and padding lie, the last of some positions, and where their logits come from.

Shapes: B rows, L positions.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.engine.shared.indexing import positions


def laid_out(
    prompts: Sequence[Sequence[int]], given: Sequence[Mapping[int, int]], gen_length: int, mask_id: int, pad_id: int
) -> tuple[Tensor, Tensor]:
    """Return tokens and what is undecided of prompts with masks behind, but for the places of these that are given."""
    rows, longest = len(prompts), max(len(prompt) for prompt in prompts) + gen_length
    tokens_BL = torch.full((rows, longest), pad_id, dtype=torch.int64)
    undecided_BL = torch.zeros(rows, longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        start = len(prompt)
        tokens_BL[row, :start] = torch.tensor(list(prompt), dtype=torch.int64)
        tokens_BL[row, start : start + gen_length] = mask_id
        undecided_BL[row, start : start + gen_length] = True
        for place, token in given[row].items():
            tokens_BL[row, start + place] = token
            undecided_BL[row, start + place] = False
    return tokens_BL, undecided_BL


def padding_mask(length_B: Tensor, width: int) -> Tensor | None:
    """Return which keys are no padding, [B, 1, S], or None when no row is padded."""
    if bool((length_B == width).all()):
        return None
    return (positions(width, length_B.device) < length_B[:, None])[:, None, :]


def last_marked(marked_BL: Tensor) -> Tensor:
    """Return the last marked position of every row, [B, 1], -1 where there is none."""
    return torch.where(marked_BL, positions(marked_BL.shape[1], marked_BL.device), -1).amax(1, keepdim=True)


def sources_of(read_BL: Tensor, shift: int) -> Tensor:
    """Return the positions [B, L] that the logits of these come from: in shifted models those before, of 0 itself."""
    if not shift:
        return read_BL
    source_BL = torch.nn.functional.pad(read_BL[:, shift:], (0, shift))
    source_BL[:, 0] |= read_BL[:, :shift].any(1)
    return source_BL
