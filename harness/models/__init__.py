"""Language models behind the engine's interface."""
