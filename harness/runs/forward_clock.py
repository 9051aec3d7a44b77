"""The time that a model's own forwards take inside a decode, without waiting for the device in between."""

from typing import Any, cast

import torch
from torch import Tensor

from harness.engine.shared.assistant import LendsEnds
from harness.engine.shared.device_clock import mark, seconds_between
from harness.engine.shared.model import ForwardRequest, LanguageModel, Store, experts_of, runs_parts


class ForwardClock:
    """A model that notes when each of its forwards begins and ends, on the device's clock.

    On CUDA these are events of the stream, so that nothing is synchronised before `seconds` is asked. `shapes` are
    those of the tokens that the forwards were shown.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.spec = model, model.spec
        self.reset()

    def reset(self) -> None:
        """Forget all forwards."""
        self.shapes: list[torch.Size] = []
        self._marks: list[tuple[Any, Any]] = []

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def parts(self) -> bool:
        """Whether the model runs parts of itself."""
        return runs_parts(self.model)

    @property
    def experts(self) -> int:
        """Among how many experts the model's mixtures choose."""
        return experts_of(self.model)

    def embed(self, tokens: Tensor) -> Tensor:
        """Return what the model has in front of its first layer."""
        return cast(LendsEnds, self.model).embed(tokens)

    def head(self, states: Tensor) -> Tensor:
        """Return what the model reads in states behind a norm."""
        return cast(LendsEnds, self.model).head(states)

    def new_store(self, rows: int, slots: int) -> Store:
        """Return a store of the model."""
        return self.model.new_store(rows, slots)

    def forward(self, request: ForwardRequest) -> Tensor:
        """Return what the model does."""
        started = mark(self.device)
        logits = self.model.forward(request)
        self._marks.append((started, mark(self.device)))
        self.shapes.append(request.tokens_BT.shape)
        return logits

    def seconds(self) -> list[float]:
        """Return the seconds of every forward, in their order."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return [seconds_between(*marks) for marks in self._marks]
