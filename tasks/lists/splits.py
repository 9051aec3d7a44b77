"""Assign item lists to splits by their content, so that no list is both trained on and tested."""

import hashlib
from collections.abc import Sequence

SPLITS = ("train", "validation", "test")


def split_of(items: Sequence[str]) -> str:
    """Return the split of an item list: hash below 90 train, 90 to 94 validation, 95 to 99 test."""
    bucket = int.from_bytes(hashlib.sha256("\x1f".join(items).encode()).digest()[:8], "big") % 100
    return "train" if bucket < 90 else "validation" if bucket < 95 else "test"
