"""The data of a figure."""

from typing import Any

Frame = Any
"""A data frame of pandas, or a column of one. Its own hints know no columns, and take rows for bare tuples."""
