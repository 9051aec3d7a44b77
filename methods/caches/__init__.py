"""Caches of masked-diffusion decoding: what a call computes, and what it takes from earlier calls."""
