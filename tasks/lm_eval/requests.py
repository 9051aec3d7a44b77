"""What a request of lm-evaluation-harness asks of decoding: where the answer ends, and how long it may be."""

from collections.abc import Mapping
from typing import Any

DEFAULT_LENGTH = 256
"""Answer tokens where a request names none, as in lm-evaluation-harness."""

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


def length(kwargs: Mapping[str, Any]) -> int:
    """Return the number of answer tokens; of several names for it the first counts."""
    return next((int(kwargs[name]) for name in _LENGTHS if kwargs.get(name) is not None), DEFAULT_LENGTH)


def stops(kwargs: Mapping[str, Any]) -> list[str]:
    """Return the strings that end an answer and are no part of it."""
    until = kwargs.get("until") or []
    return [stop for stop in ([until] if isinstance(until, str) else until) if stop]


def sampling(kwargs: Mapping[str, Any]) -> str:
    """Return the settings of sampling that a request asks for and a decoding method does not take from it, or nothing.

    The method under test decides how tokens are chosen (`method.temperature` and the like).
    """
    asked = {name: kwargs[name] for name in ("do_sample", "temperature", "top_p", "top_k") if kwargs.get(name)}
    if not asked.get("do_sample", asked.get("temperature", 0)):
        return ""
    return ", ".join(f"{name}={value}" for name, value in asked.items())
