"""The bench around the decoders: engine, models, runs and results."""
