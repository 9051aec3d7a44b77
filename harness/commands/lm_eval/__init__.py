"""decbench inside lm-evaluation-harness: a model there, and the command that makes it known."""
