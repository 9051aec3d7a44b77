"""Kills at any moment: operations on files that are interrupted at a given one."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from harness.results.files import Folder


def interrupt(patch: pytest.MonkeyPatch, at: int, operations: Sequence[str]) -> None:
    """Have the operation with the number `at`, from 0, of those that are named raise KeyboardInterrupt."""
    done: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any) -> Any:
            done.append(name)
            if len(done) > at:
                raise KeyboardInterrupt
            return real(*arguments)

        return operation

    for name in operations:
        patch.setattr(Folder, name, counted(name, getattr(Folder, name)))
