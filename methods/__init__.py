"""Decoding methods, one file each: the policies that a paper adds to the loops of the engine."""
