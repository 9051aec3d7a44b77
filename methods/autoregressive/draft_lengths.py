"""How long a draft is, where that is not fixed: by how the last one fared, or by how sure the drafter is of a token.

Source: transformers, AssistedCandidateGenerator (`num_assistant_tokens_schedule` and `assistant_confidence_threshold`);
the schedule is that of Gante, "Assisted generation", 2023. No paper.

| name there | argument | default |
|---|---|---|
| num_assistant_tokens | length | heuristic: 4, the first length of a sample; confidence: 20, the longest |
| assistant_confidence_threshold | threshold | 0.4 |

`heuristic`: 2 more behind a round all of whose drafts stood, else 1 fewer, no fewer than 1. It begins anew with every
sample (`heuristic_transient` there): one that goes on from the sample before makes counts hang on their order.
`confidence`: drafting ends behind the first token that the drafter gave less than `threshold`, that one included. The
threshold stays as it is; transformers fits it as it goes, where scikit-learn is installed.

Invariants: answers are those of any other length; `confidence` with threshold 0 is `fixed`; a row's lengths do not
depend on other rows.
"""

from torch import Tensor, full_like, where

from harness.engine.autoregressive.drafting import Round
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.stopping import Drafted
from harness.engine.shared.policy import policy
from harness.engine.shared.records import Role
from harness.errors import FieldError

LENGTH = "heuristic.length_B"
"""What the schedule keeps between rounds: the length of the next draft of each row."""


@policy("method/draft_length", "heuristic")
class HeuristicLength:
    """Draft two tokens more behind a round in which all stood, else one fewer; `length` to begin with."""

    length: int = 4

    def __post_init__(self) -> None:
        if self.length < 1:
            raise FieldError("length", self.length, "be at least 1, the floor of the schedule")

    def limit(self, sequences: Sequences) -> Tensor:
        """Return the present length of every row."""
        return sequences.memory.get(LENGTH, full_like(sequences.length_B, self.length))

    def update(self, completed: Round) -> None:
        """Go up or down, but not by the prefill, which has no drafts; a draft cut short is none that stood."""
        if completed.role is not Role.PREFILL:
            length_B = self.limit(completed.before)
            lower_B = (length_B - 1).clamp(min=1)
            completed.after.memory[LENGTH] = where(completed.n_accepted_B == length_B, length_B + 2, lower_B)


@policy("method/draft_length", "confidence")
class ConfidenceLength:
    """Draft up to `length` tokens, and none behind one that the drafter gave a probability below `threshold`."""

    length: int = 20
    threshold: float = 0.4

    def __post_init__(self) -> None:
        if self.length < 0:
            raise FieldError("length", self.length, "be at least 0, which drafts nothing")
        if not 0 <= self.threshold <= 1:
            raise FieldError("threshold", self.threshold, "lie in [0, 1]; 0 never stops")

    def limit(self, sequences: Sequences) -> Tensor:
        """Return `length` for every row."""
        return full_like(sequences.length_B, self.length)

    def keep_going(self, drafted: Drafted) -> Tensor:
        """Go on behind tokens that are sure enough."""
        return drafted.probability_R() >= self.threshold
