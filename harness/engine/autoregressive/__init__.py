"""Autoregressive decoding: sequences, the draft-verify loop, and the parts of a method."""
