"""Values and files as compressed text inside of a page, which no content of theirs can break out of."""

import base64
import gzip
import json
import math
from collections.abc import Mapping
from typing import Any


def packed(value: Any) -> str:
    """Return a value as JSON, compressed, in base64: the same text for the same value; what is no number is null."""
    try:
        text = _written(value)
    except ValueError:
        # Looking for what is no number takes several times as long as writing, and hardly ever finds any.
        text = _written(_finite(value))
    return packed_text(text)


def packed_text(text: str) -> str:
    """Return a text, compressed, in base64; characters that are no Unicode are spelled out."""
    content = gzip.compress(text.encode("utf-8", errors="backslashreplace"), compresslevel=9, mtime=0)
    return base64.b64encode(content).decode("ascii")


def unpacked(text: str) -> Any:
    """Return the value that `packed` was given."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


def _written(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
