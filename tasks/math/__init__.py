"""Mathematical problems in words, whose answers are numbers or expressions."""

from tasks.math.gsm8k import Gsm8k
from tasks.math.math500 import Math500

__all__ = ["Gsm8k", "Math500"]
