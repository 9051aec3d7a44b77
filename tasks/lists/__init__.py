"""List operations: tasks whose answers are known in full, for measuring what parallel decoding costs."""

from tasks.lists.task import ListTask

__all__ = ["ListTask"]
