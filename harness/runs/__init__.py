"""Executing runs: the runner, sweeps, measurement, provenance, trackers."""
