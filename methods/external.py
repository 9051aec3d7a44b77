"""Decoding that is somebody else's: the model generates, and nothing about it is chosen here."""

from collections.abc import Mapping

from harness.engine.shared.policy import policy


@policy("method/sampler", "own")
class Own:
    """Whatever the model decodes with; its parameters are the model's (`model.kwargs`)."""

    def settings(self) -> Mapping[str, object]:
        """Return none."""
        return {}
