"""DiffusionGemma's sampler: canvases of uniform noise, redrawn where the model is unsure until they are stable.

Source: transformers, `generation_diffusion_gemma.py`, which is what runs; the model has no mask token, so that it does
not fit the masked-diffusion loop. In each of at most N steps, n counted down from N, logits are divided by
t = t_min + (t_max - t_min) n / N and every position is drawn; positions stand in the order of their entropy as long as
the entropies before them sum to `entropy_bound` at most, the others become noise again. A canvas is complete when its
most probable tokens have not changed for `stability_threshold` steps and their mean entropy is below
`confidence_threshold`; those tokens are its text.

Symbol -> argument: N -> max_denoising_steps. Invariant: the tokens are those of the class's own `generate`.
"""

from collections.abc import Mapping

from harness.engine.shared.policy import policy
from harness.errors import FieldError


@policy("method/sampler", "entropy_bound")
class EntropyBound:
    """Parameters of the sampler, with the defaults of the class; ranges: steps >= 1, thresholds > 0, t_max > t_min."""

    max_denoising_steps: int = 48
    entropy_bound: float = 0.1
    t_min: float = 0.4
    t_max: float = 0.8
    stability_threshold: int = 1
    confidence_threshold: float = 0.005

    def __post_init__(self) -> None:
        for name, least in (("max_denoising_steps", 1), ("stability_threshold", 0), ("t_min", 0)):
            if getattr(self, name) < least:
                raise FieldError(name, getattr(self, name), f"be at least {least}")
        for name in ("entropy_bound", "confidence_threshold"):
            if getattr(self, name) <= 0:
                raise FieldError(name, getattr(self, name), "be above 0")
        if self.t_max <= self.t_min:
            raise FieldError("t_max", self.t_max, f"be above t_min={self.t_min}")

    def settings(self) -> Mapping[str, object]:
        """Return the parameters by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}  # type: ignore[attr-defined]
