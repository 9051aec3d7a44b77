"""Puzzles whose answers a program can check exactly."""

from tasks.puzzles.countdown import Countdown
from tasks.puzzles.parallelbench import ParallelPuzzle
from tasks.puzzles.sudoku import Sudoku

__all__ = ["Countdown", "ParallelPuzzle", "Sudoku"]
