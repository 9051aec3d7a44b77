"""List problems as the embedded models read them: one symbol per token, every part at a fixed place."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.lists.alphabets import LETTERS
from tasks.lists.instance import Example, ListInstance
from tasks.lists.operations import Items

LARGEST_INDEX = 15


@dataclass(frozen=True, kw_only=True)
class TinyRenderer:
    """Write `<bos> OP IDX WORD <arg> items padding <sep>`; the answer is its items, then `<eos>`.

    IDX is `#index` or `#count`. The list is padded to `max_items`, so item k of the prompt and item k of the
    answer keep their distance for every operation and length; small models do not learn the task otherwise.
    """

    max_items: int

    def prompt(self, instance: ListInstance, examples: Sequence[Example] = ()) -> str:
        """Return the prompt of `max_items + 6` symbols; there is no room for examples."""
        assert not examples, "the layout of the embedded models has no place for worked examples"
        argument = instance.index if instance.index is not None else instance.count
        padding = ["<pad>"] * (self.max_items - len(instance.items))
        header = ["<bos>", instance.op, "<none>" if argument is None else f"#{argument}"]
        header += [instance.word or "<none>", "<arg>"]
        return " ".join([*header, *instance.items, *padding, "<sep>"])

    def write(self, answer: Items) -> str:
        """Return the text of an answer, its end included."""
        return " ".join([*answer, "<eos>"])

    def parse(self, text: str, *, strict: bool = False) -> Items | None:
        """Return the items before the first `<eos>`, or None if another symbol is among them.

        There is one way to read symbols: strict or not makes no difference.
        """
        answer: list[str] = []
        for symbol in text.split():
            if symbol == "<eos>":
                break
            if symbol not in LETTERS:
                return None
            answer.append(symbol)
        return tuple(answer)
