"""Tasks that need serial work: accuracy is looked at against the number of decoding steps."""

from tasks.serial.fsm_word import FsmWord
from tasks.serial.graph_reach import GraphReach

__all__ = ["FsmWord", "GraphReach"]
