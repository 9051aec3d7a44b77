"""Loaded models, kept between the runs of one process; a sweep loads each model once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from harness.engine.model import LanguageModel


class Tokenizer(Protocol):
    """Text to ids and back."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model ready to decode, its tokenizer, and what identifies its weights.

    `checkpoint_sha256` is that of the weights file, None for models without one; `parameters` is their number.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    checkpoint_sha256: str | None
    parameters: int


_HELD: dict[str, LoadedModel] = {}
"""At most one model: the one loaded last, under its key."""


def load_model(key: str, factory: Callable[[], LoadedModel]) -> LoadedModel:
    """Return the model held under `key`, or drop the held one and load another with `factory`.

    `key` must tell apart everything that changes the model: its configuration, dtype and device.
    """
    if key not in _HELD:
        _HELD.clear()
        _HELD[key] = factory()
    return _HELD[key]
