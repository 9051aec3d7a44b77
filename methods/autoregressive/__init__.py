"""Autoregressive methods: acceptors and drafters of the draft-verify loop."""
