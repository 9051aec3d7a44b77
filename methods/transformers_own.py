"""transformers' own generation: plain, with drafts of a second model, of an assistant, from the text, or of its layers.

Code: transformers, `GenerationMixin._sample` and `_assisted_decoding`, with the candidate generators of
`generation/candidate_generator.py`; 5.24 is what these names were tried with. They are here beside methods of the same
kind (`ar_greedy`, `speculative`, `prompt_lookup`, `layer_skip`), to say what the loop of this project is worth: the
models are the same (kind `hf_causal`), calls and positions are counted by hooks on their modules.

| method | knobs of transformers |
|---|---|
| hf_greedy | |
| hf_assisted | num_assistant_tokens (20), num_assistant_tokens_schedule, assistant_confidence_threshold (0.4) |
| hf_prompt_lookup | prompt_lookup_num_tokens, max_matching_ngram_size (2) |
| hf_early_exit | assistant_early_exit, and those of hf_assisted |
| hf_dflash | none: the block is the assistant's (`block_size`), one token and masks, all drafted in one call |

Greedy; one prompt at a time, as its assisted generation takes no more. Traps that are told and not repaired: an early
exit keeps a cache of its own, reads the prompt twice, and fails on classes such as GPT-2 that run all layers whatever
their config says; where scikit-learn is installed the confidence threshold is learned anew while a prompt is answered
(0 switches it off). What schedules leave behind is taken back behind a prompt.
Invariants: equal to `ar_greedy`, whatever drafts.
"""

from collections.abc import Mapping
from enum import Enum
from typing import ClassVar

from harness.engine.shared.model import ModelKind
from harness.engine.shared.policy import policy
from harness.errors import FieldError


class Schedule(Enum):
    """How the number of drafts goes on: the same, or two more after a round that stood, one fewer after another."""

    constant = "constant"
    heuristic = "heuristic"


def _at_least(policy: object, least: Mapping[str, int]) -> None:
    for name, bound in least.items():
        if getattr(policy, name) < bound:
            raise FieldError(name, getattr(policy, name), f"be at least {bound}")


@policy("method/sampler", "hf_greedy")
class Plain:
    """Decode greedily, one token per call."""

    library: ClassVar[str] = "transformers"

    def settings(self) -> Mapping[str, object]:
        """Return none."""
        return {}


@policy("method/sampler", "hf_assisted")
class Assisted:
    """Have a second model draft up to `num_assistant_tokens`, as long as it is as sure as the threshold says."""

    num_assistant_tokens: int = 20
    num_assistant_tokens_schedule: Schedule = Schedule.constant
    assistant_confidence_threshold: float = 0.4
    library: ClassVar[str] = "transformers"
    asks: ClassVar[frozenset[ModelKind]] = frozenset({ModelKind.CAUSAL})

    def __post_init__(self) -> None:
        _at_least(self, {"num_assistant_tokens": 1})

    def settings(self) -> Mapping[str, object]:
        """Return what transformers reads from the assistant's config."""
        return {
            "num_assistant_tokens": self.num_assistant_tokens,
            "num_assistant_tokens_schedule": self.num_assistant_tokens_schedule.value,
            "assistant_confidence_threshold": self.assistant_confidence_threshold,
        }


@policy("method/sampler", "hf_dflash")
class DFlash:
    """Have an assistant draft a block at once, from hidden states of the target."""

    library: ClassVar[str] = "transformers"
    asks: ClassVar[frozenset[ModelKind]] = frozenset({ModelKind.ASSISTANT})

    def settings(self) -> Mapping[str, object]:
        """Return the kind of speculation."""
        return {"speculation_type": "dflash"}


@policy("method/sampler", "hf_prompt_lookup")
class Lookup:
    """Draft what followed the last tokens where they stood before, `prompt_lookup_num_tokens` of it."""

    prompt_lookup_num_tokens: int = 10
    max_matching_ngram_size: int = 2
    library: ClassVar[str] = "transformers"

    def __post_init__(self) -> None:
        _at_least(self, {"prompt_lookup_num_tokens": 1, "max_matching_ngram_size": 1})

    def settings(self) -> Mapping[str, object]:
        """Return both."""
        return {
            "prompt_lookup_num_tokens": self.prompt_lookup_num_tokens,
            "max_matching_ngram_size": self.max_matching_ngram_size,
        }


@policy("method/sampler", "hf_early_exit")
class ExitEarly:
    """Draft with the first `assistant_early_exit` layers of the target itself."""

    assistant_early_exit: int = 1
    num_assistant_tokens: int = 20
    assistant_confidence_threshold: float = 0.4
    library: ClassVar[str] = "transformers"

    def __post_init__(self) -> None:
        _at_least(self, {"assistant_early_exit": 1, "num_assistant_tokens": 1})

    def fit_layers(self, layers: int) -> None:
        """Raise FieldError for an exit behind which no layer is left."""
        if self.assistant_early_exit >= layers:
            asked = f"be from 1 to {layers - 1}, of {layers} layers"
            raise FieldError("assistant_early_exit", self.assistant_early_exit, asked)

    def settings(self) -> Mapping[str, object]:
        """Return the exit, and what transformers reads from the assistant's config."""
        return {
            "assistant_early_exit": self.assistant_early_exit,
            "num_assistant_tokens": self.num_assistant_tokens,
            "assistant_confidence_threshold": self.assistant_confidence_threshold,
        }
