"""Rows of a task of lm-evaluation-harness: its own data set, files of the user's, or what is shipped here."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import Any

from harness.errors import DataError
from tasks import rows
from tasks.lm_eval.definitions import Definition, quiet
from tasks.math import math500

SHIPPED = {
    ("openai/gsm8k", "main"): {"train": "gsm8k_train.jsonl.gz", "test": "gsm8k_test.jsonl.gz"},
    ("HuggingFaceH4/MATH-500", "default"): {"test": "math500.jsonl.gz"},
}
"""Data sets of the hub, by name and configuration, that this package holds: file by split."""

Splits = Mapping[str, Sequence[rows.Row]]


def load(definition: Definition, files: Mapping[str, str], *, num_fewshot: int | None, download: bool) -> Any:
    """Return the library's task with its data: from `files` by split, else shipped, else as its YAML says.

    Nothing is fetched unless `download` allows it. Raises DataError naming the task and what would do.
    """
    repository, part = definition.config.get("dataset_path"), definition.config.get("dataset_name")
    shipped = {} if files else SHIPPED.get((str(repository), str(part)), {})
    splits = {split: rows.from_file(file, {}) for split, file in files.items()}
    splits |= {split: rows.shipped(math500.FOLDER, file) for split, file in shipped.items()}
    changes: dict[str, Any] = {"num_fewshot": num_fewshot} if num_fewshot is not None else {}
    if splits:
        changes |= {"custom_dataset": _opener(splits), "dataset_path": None, "dataset_name": None}
    try:
        with nullcontext() if download else rows.offline():
            return _made(definition, changes, repository if not splits and not download else None)
    # The library, and the code of a task, raise whatever their readers raise.
    except Exception as error:
        where = f"task.name={definition.name}"
        if splits or not isinstance(repository, str) or "/" not in repository:
            raise DataError(f"{where}: cannot be loaded ({type(error).__name__}: {error})") from error
        remedy = "or give its splits as task.data={test: FILE}"
        raise DataError(
            f"{where}: data set {repository}: {rows.absent(repository, error, download=download)}, {remedy}"
        ) from error


@contextmanager
def silent() -> Iterator[None]:
    """Keep bars and advice of the libraries from the terminal."""
    with quiet(), redirect_stderr(io.StringIO()):
        yield


def _made(definition: Definition, changes: Mapping[str, Any], repository: object) -> Any:
    """Let the library make the task; where it finds no data set, from the files that `hf download` left."""
    try:
        return _load(definition, changes)
    except Exception:
        folder = rows.downloaded(repository) if isinstance(repository, str) and "/" in repository else None
        if folder is None:
            raise
        return _load(definition, {**changes, "dataset_path": folder})


def _load(definition: Definition, changes: Mapping[str, Any]) -> Any:
    # Changes to a task that is known by name are merged into its definition only where a group names it.
    group = {"group": "decbench", "task": [{"task": definition.name, **changes}]}
    with silent():
        return definition.manager.load(group)["tasks"][definition.name]


def _opener(splits: Splits) -> Callable[..., Any]:
    """Return what the library calls in place of loading a data set, with whatever the task says about its own."""

    def open_splits(**_: object) -> Any:
        from datasets import Dataset, DatasetDict

        return DatasetDict({split: Dataset.from_list([dict(row) for row in found]) for split, found in splits.items()})

    return open_splits
