"""Decoding: the canvas, the two loops, the policies' interfaces, and the one counter."""
