"""The one JSON text of a value: what digests are taken of, and how structured columns are written."""

import json


def canonical_json(value: object) -> str:
    """Return the JSON text of a value, whatever the order of its keys; raise ValueError for nan and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
