"""Unified layer skipping: every token but the prompt's passes the same few layers, evenly spread.

Paper: Liu et al., arXiv:2404.06954, section 3; released code: Adaxry/Unified_Layer_Skipping.

Of N layers K = floor(N / s) are kept, for a target speed-up s: the first, the last, and between them those that
floor(N / (K - 1)) divides, from below, until there are K. The prompt passes all layers.

| symbol | argument | default |
|---|---|---|
| s | speedup | 2 |

Lossy: nothing verifies the answers, and a model that was not fine-tuned for it loses much. Deviation from the released
code: layers that are skipped keep no copy of another layer's keys and values, which nobody reads.
Invariants: with s = 1 nothing is skipped and the answers are those of greedy decoding; a decoding step loads K layers.
"""

from typing import ClassVar

from harness.engine.shared.model import Part
from harness.engine.shared.policy import policy
from harness.engine.shared.records import Role
from harness.errors import FieldError


@policy("method/layers", "unified_skip")
class UnifiedSkip:
    """Run all layers of the model for prompts, and one in `speedup` for what follows."""

    speedup: float = 2.0
    of_draft: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.speedup < 1:
            raise FieldError("speedup", self.speedup, "be at least 1, which skips nothing")

    def fit_layers(self, layers: int) -> None:
        """Raise FieldError where fewer than the first and the last layer would be left."""
        if self.speedup != 1 and layers / self.speedup < 2:
            raise FieldError("speedup", self.speedup, f"leave two of {layers} layers, so be at most {layers / 2:g}")

    def part(self, role: Role, layers: int) -> Part | None:
        """Return what is left of the layers, None for all of them."""
        if role is Role.PREFILL or self.speedup == 1:
            return None
        skipped = {*range(layers)} - {*kept(layers, self.speedup)}
        return Part(skipped=frozenset(half for layer in skipped for half in (2 * layer, 2 * layer + 1)))


def kept(layers: int, speedup: float) -> list[int]:
    """Return the layers, of so many, that are kept for a target speed-up; at least two of them must be left."""
    count = int(layers / speedup)
    if count >= layers:
        return [*range(layers)]
    interval = layers // (count - 1)
    between = [layer for layer in range(1, layers - 1) if layer % interval == 0]
    return [0, *between[: count - 2], layers - 1]
