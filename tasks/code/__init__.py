"""Programming problems, whose answers are programs that must pass tests."""

from tasks.code.humaneval import HumanEval
from tasks.code.mbpp import Mbpp

__all__ = ["HumanEval", "Mbpp"]
