"""The one JSON text of a value: what digests are taken of, and how structured columns are written."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

_NUMBER = re.compile(r"(?<=[=\[,])[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?(?=[\s\],]|$)", re.IGNORECASE)


@lru_cache(maxsize=4096)
def canonical_setting(text: str) -> str:
    """Return a setting with equal numbers written alike; as they were typed (0.90, 9e-1), they are for people."""
    return _NUMBER.sub(lambda number: repr(float(number[0])), re.sub(r",\s+", ",", text))


def canonical_json(value: object) -> str:
    """Return the JSON text of a value, whatever the order of its keys; raise ValueError for nan and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def prompt_digest(ids: Sequence[int]) -> str:
    """Return what samples keep of the ids of their prompt."""
    return hashlib.sha256(canonical_json(ids).encode()).hexdigest()


def printable(value: object) -> object:
    """Return a value that has a JSON text: numbers that are none, and text that is no Unicode, are spelled out."""
    if isinstance(value, Mapping):
        return {str(printable(key)): printable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [printable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
