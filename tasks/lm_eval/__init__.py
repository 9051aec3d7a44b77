"""Tasks of lm-evaluation-harness as tasks here: their prompts, filters and metrics around our decoding."""

from tasks.lm_eval.task import LmEvalTask

__all__ = ["LmEvalTask"]
