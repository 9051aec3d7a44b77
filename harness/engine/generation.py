"""What both loops return, and how they fail."""

from dataclasses import dataclass


class DecodeError(RuntimeError):
    """A generation cannot go on; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The result of one row: response tokens, when each was committed, and what the loop did.

    `decided_at` counts steps (rounds of the draft-verify loop) from 0, those included that closed nothing; -1
    means given; what a finish rule fills counts as decided by the last step. `tokens_generated` counts discarded tokens
    too, filled ones not. `first_call` is the model call, from 0, after which the first response position had its token
    (-1 if it was given): what a reader waits for. `stopped_at` is the step, from 0, at which a stopper had everything
    committed (-1: it did not).
    """

    sample: int
    tokens: tuple[int, ...]
    decided_at: tuple[int, ...]
    idle: int
    forced: int
    remasked: int
    tokens_generated: int
    first_call: int
    stopped_at: int = -1
