"""List problems as chat models read them: a worked example or more, then the question in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.lists.instance import Example, ListInstance
from tasks.lists.operations import Items
from tasks.lists.prompts import PROMPTS
from tasks.task import Message


def render(items: Sequence[str]) -> str:
    """Write a list as `["a", "b"]`."""
    return '["' + '", "'.join(items) + '"]'


@dataclass(frozen=True, kw_only=True)
class ChatRenderer:
    """Put list problems in the words of `template`."""

    template: str

    def prompt(self, instance: ListInstance, examples: Sequence[Example]) -> list[Message]:
        """Return a user and an assistant turn per example, then the user turn that asks; no system turn."""
        turns: list[Message] = []
        for example in examples:
            turns.append(self._ask(example.instance))
            turns.append(Message(role="assistant", content=self.write(example.answer)))
        return [*turns, self._ask(instance)]

    def write(self, answer: Items) -> str:
        """Return the text of an answer."""
        return render(answer)

    def parse(self, text: str, *, strict: bool = False) -> Items | None:
        """Read the list after the last `[` up to the next `]`.

        Lenient reading takes pieces between commas and forgives missing brackets, quotes and blanks (not
        line breaks or single quotes); a piece of white space alone is none, but `""` is an item. Strict reading
        wants `["a", "b"]` and returns None otherwise.
        """
        if strict and not ("[" in text and "]" in text.rpartition("[")[2]):
            return None
        inside = text.rpartition("[")[2].partition("]")[0]
        if not strict:
            return tuple(piece.strip('" ') for piece in inside.split(",") if piece.strip())
        pieces = inside.split(", ")
        if any(p[:1] != '"' or p[-1:] != '"' or '"' in p[1:-1] for p in pieces):
            return None
        return tuple(piece[1:-1] for piece in pieces)

    def _ask(self, instance: ListInstance) -> Message:
        text = PROMPTS[self.template][instance.op].format(
            list=render(instance.items), word=instance.word, index=instance.index, count=instance.count
        )
        return Message(role="user", content=text)
