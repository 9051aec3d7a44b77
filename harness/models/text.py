"""Published tokenizers, read from the folder of their checkpoint; no remote code, no network."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from harness.errors import DataError

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
"""The files that can make up a tokenizer; those that exist are part of what identifies a checkpoint."""


class TextTokenizer:
    """A published tokenizer and chat template, with the tokens that end an answer of its model."""

    def __init__(
        self, inner: Any, *, where: str, stop_ids: Sequence[int], add_bos: bool = False, add_eos: bool = False
    ) -> None:
        self.inner, self.where, self.stop_ids = inner, where, frozenset(stop_ids)
        self.add_bos, self.add_eos = add_bos, add_eos
        if add_bos and inner.bos_token_id is None:
            raise DataError(f"{where}: the tokenizer has no token to begin a text with, but add_bos asks for one")

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` without special tokens around it."""
        return list(self.inner.encode(text, add_special_tokens=False))

    def encode_prompt(self, prompt: str | Sequence[Mapping[str, object]]) -> list[int]:
        """Return the ids of a whole prompt, between the special tokens that the model wants, or of rendered turns.

        Raise DataError where the checkpoint has no chat template, or one that refuses these turns.
        """
        if isinstance(prompt, str):
            bos, eos = [self.inner.bos_token_id] * self.add_bos, [self.inner.eos_token_id] * self.add_eos
            return bos + self.encode(prompt) + eos
        return self.encode(self.render(prompt))

    def render(self, turns: Sequence[Mapping[str, object]]) -> str:
        """Return chat turns as the text that the assistant's answer follows, special tokens written out.

        A last turn of the assistant is left open, up to its very last character: the answer goes on from there. With
        nothing in it, it is a turn that opens behind the others, the assistant's own included.
        """
        from jinja2 import TemplateError

        if self.inner.chat_template is None:
            raise DataError(
                f"{self.where}: no chat template, so chat turns cannot be written; use a model that was tuned for chat"
            )
        begun = str(turns[-1]["content"]) if turns[-1]["role"] == "assistant" else None
        if begun == "":
            turns, begun = turns[:-1], None
        how = {"continue_final_message": True} if begun else {"add_generation_prompt": True}
        try:
            text = self.inner.apply_chat_template([dict(turn) for turn in turns], tokenize=False, **how)
        except (TemplateError, ValueError) as error:
            raise DataError(f"{self.where}: the chat template refuses these turns ({one_line(error)})") from None
        # Templates may trim a turn, but an answer that goes on after a line end must find it.
        return text if begun is None or text.endswith(begun) else text + begun[len(begun.rstrip()) :]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text before the first token that ends an answer, special tokens left out."""
        answer = list(takewhile(lambda i: i not in self.stop_ids, ids))
        return self.inner.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def read(folder: Path) -> Any:
    """Return the transformers tokenizer of a folder; raise DataError naming what is missing or damaged.

    Qwen's files (vocab.json, merges.txt) do without a tokenizer.json, whatever class the folder asks for: Dream
    publishes that way and names a class of its own code.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

    classes: list[tuple[bool, Callable[..., Any]]] = [
        ((folder / "tokenizer.json").is_file(), PreTrainedTokenizerFast.from_pretrained),
        ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file(), Qwen2Tokenizer.from_pretrained),
        ((folder / "tokenizer.model").is_file(), AutoTokenizer.from_pretrained),
    ]
    for there, make in classes:
        if not there:
            continue
        try:
            return make(str(folder), local_files_only=True, trust_remote_code=False)
        # The library raises whatever its Rust core raises, which has no class of its own.
        except Exception as error:
            raise DataError(f"{folder}: not a readable tokenizer ({one_line(error)}); download it again") from None
    raise DataError(f"{folder}: no tokenizer (tokenizer.json, or vocab.json with merges.txt); download it again")


def token_id(tokenizer: Any, token: str) -> int | None:
    """Return the id of one token of the vocabulary by its text, or None where there is none."""
    return tokenizer.get_vocab().get(token)


def begins_with_bos(tokenizer: Any) -> bool:
    """Tell whether a tokenizer, left to itself, begins a text with its begin token."""
    ids = tokenizer.encode("a")
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def ends_with_eos(tokenizer: Any) -> bool:
    """Tell whether a tokenizer, left to itself, ends a text with its end token."""
    ids = tokenizer.encode("a")
    return tokenizer.eos_token_id is not None and ids[-1:] == [tokenizer.eos_token_id]


def one_line(error: Exception) -> str:
    """Return the start of an error's text as one line."""
    return " ".join(str(error).split())[:200]
