"""Read list problems of a user's own from a file of JSON lines."""

from pathlib import Path
from typing import Any

from harness import files
from harness.errors import DataError
from tasks.lists.instance import ListInstance

_FIELDS = {"items": list, "word": str, "index": int, "count": int, "id": str}


def read_instances(path: str | Path, op: str) -> list[ListInstance]:
    """Return one instance of `op` per line of `path`, in file order.

    A row is an object with `items` and what the operation takes: `word`, `index` (from 0) or `count`; `id` is
    optional. Raises DataError naming file, row (from 1), field and what would do.
    """
    file = Path(path)
    try:
        lines = files.text(file).rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); give the path of a UTF-8 JSON-lines file") from error
    if lines == [""]:
        raise DataError(f'{file}: no rows; write one object per line, such as {{"items": ["A", "B", "C"]}}')
    found: dict[str, ListInstance] = {}
    for number, line in enumerate(lines, start=1):
        try:
            instance = _read_row(line, op, default_id=f"{file.stem}-{number}")
            if instance.id in found:
                raise DataError(f"field 'id': {instance.id!r} stands in an earlier row; give every row its own")
        except DataError as error:
            raise DataError(f"{file}, row {number}: {error}") from error
        found[instance.id] = instance
    return list(found.values())


def _read_row(line: str, op: str, default_id: str) -> ListInstance:
    try:
        row = files.parsed(line)
    except ValueError as error:
        raise DataError(f"not JSON ({error}); write one object per line") from error
    if not isinstance(row, dict):
        raise DataError(f"{type(row).__name__} instead of an object with the fields {', '.join(_FIELDS)}")
    _check_fields(row)
    return ListInstance(
        op=op,
        items=tuple(row["items"]),
        word=row.get("word"),
        index=row.get("index"),
        count=row.get("count"),
        id=row.get("id", default_id),
        split="custom",
        seed=0,
    )


def _check_fields(row: dict[str, Any]) -> None:
    for name, value in row.items():
        if name not in _FIELDS:
            raise DataError(f"field {name!r} is unknown; there are {', '.join(_FIELDS)}")
        if type(value) is not _FIELDS[name]:
            raise DataError(f"field {name!r}: {value!r} must be of type {_FIELDS[name].__name__}")
    if "items" not in row:
        raise DataError("field 'items' is missing; give a list of texts")
    for item in [*row["items"], row.get("word", "-")]:
        if not isinstance(item, str) or not item.strip() or set(item) & set('",[]\n') or item != item.strip():
            raise DataError(f"field 'items' or 'word': {item!r} must be a text without quotes, commas or brackets")
