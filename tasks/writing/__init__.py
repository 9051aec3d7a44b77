"""The text-writing tasks of ParallelBench, from a copy of the benchmark that the user has."""

from tasks.writing.task import WritingTask

__all__ = ["WritingTask"]
