"""Runs generated Python without letting it near anything else."""

from tasks.code.sandbox.tiers import Isolation, isolation, require, run_many, run_python
from tasks.code.sandbox.verdict import MINIMUM, Limits, Tier, Verdict

__all__ = ["MINIMUM", "Isolation", "Limits", "Tier", "Verdict", "isolation", "require", "run_many", "run_python"]
