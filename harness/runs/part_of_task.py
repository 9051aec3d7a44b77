"""Some samples of a task, in the task's place."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.task import Sample, Score, Task


@dataclass(frozen=True, kw_only=True)
class PartOfTask:
    """Those `samples` of a task; where they are not `graded`, their answers are neither right nor wrong."""

    whole: Task
    samples: Sequence[Sample]
    graded: bool = True

    @property
    def name(self) -> str:
        """The task's."""
        return self.whole.name

    def instances(self) -> Sequence[Sample]:
        """Return the samples."""
        return self.samples

    def score(self, sample: Sample, text: str) -> Score:
        """Grade an answer as the task does, or not at all."""
        return self.whole.score(sample, text) if self.graded else Score(correct=None)
