"""Decoding: two loops in rooms that do not know each other, on shared ground, and the families that they serve."""
