"""The one tokenizer of all embedded models: 128 symbols, one symbol = one token, text split at blanks."""

import string
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, MASK, BOS, EOS, SEP, ARG, NONE, NEWLINE = SPECIAL = (
    "<pad>",
    "<mask>",
    "<bos>",
    "<eos>",
    "<sep>",
    "<arg>",
    "<none>",
    "<nl>",
)
_RESERVED = ("<think>", "<ans>", "<lud>", *(f"<reserved_{i}>" for i in range(3, 8)))
_OPERATIONS = (
    *("copy", "reverse", "sort", "shuffle", "replace_index", "replace_random"),
    *("insert_index", "insert_random", "remove_index", "remove_random", "repeat_each", "repeat_list"),
    *("latin", "sudoku", "countdown", "fsm_word", "graph_reach"),
    *(f"<operation_{i}>" for i in range(17, 24)),
)
_INDICES = tuple(f"#{i}" for i in range(16))
_MARKS = tuple("+-*/=(),:.")
VOCABULARY: tuple[str, ...] = (
    *SPECIAL,
    *_RESERVED,
    *_OPERATIONS,
    *_INDICES,
    *string.digits,
    *_MARKS,
    *string.ascii_uppercase,
    *string.ascii_lowercase,
)
IDS: dict[str, int] = {token: i for i, token in enumerate(VOCABULARY)}


class SymbolTokenizer:
    """Map texts of blank-separated symbols to ids and back; the vocabulary is fixed for ever."""

    vocab_size = len(VOCABULARY)
    pad_id, mask_id, bos_id, eos_id = IDS[PAD], IDS[MASK], IDS[BOS], IDS[EOS]

    def encode(self, text: str) -> list[int]:
        """Return one id per symbol; raise DataError naming the first symbol that is not in the vocabulary."""
        symbols = text.split()
        for place, symbol in enumerate(symbols):
            if symbol not in IDS:
                raise DataError(
                    f"symbol {symbol!r} at place {place} is not one of the {self.vocab_size} symbols of the "
                    f"embedded models; use their items (A-Z, a-z), or a model with a text tokenizer"
                )
        return [IDS[symbol] for symbol in symbols]

    def encode_prompt(self, prompt: str | Sequence[Mapping[str, object]]) -> list[int]:
        """Return the ids of a prompt as it stands; raise DataError for chat turns, which the models never saw."""
        if not isinstance(prompt, str):
            raise DataError("the embedded models read no chat turns; use task.renderer=tiny, or a text model")
        return self.encode(prompt)

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Return the symbols of `ids` joined by blanks, without the eight special ones if asked."""
        symbols = (VOCABULARY[i] for i in ids)
        return " ".join(s for s in symbols if not (skip_special_tokens and s in SPECIAL))

    def to_transformers(self) -> "PreTrainedTokenizerFast":
        """Return the same tokenizer as a `PreTrainedTokenizerFast` with the chat template of the layout.

        A user turn is `<bos> {content} <sep>`, an assistant turn ` {content} <eos>`.
        """
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        core = Tokenizer(models.WordLevel(dict(IDS), unk_token=None))
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        fast = PreTrainedTokenizerFast(
            tokenizer_object=core,
            pad_token=PAD,
            mask_token=MASK,
            bos_token=BOS,
            eos_token=EOS,
            extra_special_tokens=[SEP, ARG, NONE, NEWLINE],
            clean_up_tokenization_spaces=False,
        )
        fast.chat_template = (
            "{% for m in messages %}{% if m['role'] == 'user' %}<bos> {{ m['content'] }} <sep>"
            "{% else %} {{ m['content'] }} <eos>{% endif %}{% endfor %}"
        )
        return fast


def ids_of(symbols: Sequence[str]) -> list[int]:
    """Return the ids of symbols known to be in the vocabulary (a KeyError is a bug)."""
    return [IDS[s] for s in symbols]
