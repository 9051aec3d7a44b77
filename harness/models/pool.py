"""Loaded models, kept between the runs of one process; a sweep loads each model once."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.engine.shared.model import LanguageModel


class Tokenizer(Protocol):
    """Text to ids and back."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` and of nothing else."""
        ...

    def encode_prompt(self, prompt: str | Sequence[Mapping[str, object]]) -> list[int]:
        """Return the ids that an answer follows: of a whole prompt, or of chat turns in the model's template.

        A turn has a `role` and a `content`. Raises DataError where the model has no template for turns.
        """
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of an answer."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model ready to decode, its tokenizer, and what identifies its weights.

    `checkpoint_sha256` changes with anything of the checkpoint that can change an answer, tokenizer included; None
    for models without a checkpoint. `parameters` is their number, None where nobody tells. `elsewhere` says where a
    model computes that does not on this machine. `weights` says how they differ from the published ones. `beside` are
    the models that are asked beside it, by role, where a run has any; `model` then is all
    (`harness.engine.shared.model.Models`).
    """

    model: LanguageModel
    tokenizer: Tokenizer
    checkpoint_sha256: str | None
    parameters: int | None
    elsewhere: str | None = None
    weights: str | None = None
    beside: Mapping[str, "LoadedModel"] = field(default_factory=dict)


_HELD: dict[str, LoadedModel] = {}
"""The models of the run that was loaded last, under their keys."""


def load_model(key: str, factory: Callable[[], LoadedModel], beside: Collection[str] = ()) -> LoadedModel:
    """Return the model held under `key`, or load it with `factory`; others are dropped first, but those `beside` it.

    `key` must tell apart everything that changes the model: its configuration, dtype and device.
    """
    for other in [held for held in _HELD if held != key and held not in beside]:
        del _HELD[other]
    if key not in _HELD:
        _HELD[key] = factory()
    return _HELD[key]
