"""Numbers of several kinds that the host reads together: on a device every read is a wait.

Shapes: B rows, K numbers of each.
"""

import struct
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor


def read_rows(*parts_BK: Tensor) -> list[list[Any]]:
    """Return each row of all parts, by one transfer: whole numbers as such, others as they are in float64.

    These travel as the whole numbers that have their bits.
    """
    whole = [_whole(part_BK) for part_BK in parts_BK]
    ends = pairwise(accumulate((part_BK.shape[1] for part_BK in parts_BK), initial=0))
    spans = [(slice(*span), part_BK.is_floating_point()) for span, part_BK in zip(ends, parts_BK, strict=True)]
    rows = torch.cat(whole, 1).tolist()
    return [[_floats(row[span]) if float_ else row[span] for span, float_ in spans] for row in rows]


def _whole(part_BK: Tensor) -> Tensor:
    return part_BK.double().view(torch.int64) if part_BK.is_floating_point() else part_BK.long()


def _floats(numbers: list[int]) -> tuple[float, ...]:
    return struct.unpack(f"{len(numbers)}d", struct.pack(f"{len(numbers)}q", *numbers))
