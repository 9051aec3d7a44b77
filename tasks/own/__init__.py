"""A task of a user's own: rows of a file, a prompt with their fields, and a grader."""

from tasks.own.task import JsonlTask

__all__ = ["JsonlTask"]
