"""Masked diffusion: the canvas, its loop, the parts of a method, and what caches are made of."""
