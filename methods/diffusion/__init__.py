"""Decoders of masked-diffusion models, one file per paper."""
