"""The vocabulary is fixed for ever; the two forms of the tokenizer are one."""

import random
import string

import pytest

from harness.errors import DataError
from harness.models.tokenizer import IDS, VOCABULARY, SymbolTokenizer

TOKENIZER = SymbolTokenizer()


def random_text(rng: random.Random) -> str:
    return " ".join(rng.choices(VOCABULARY, k=rng.randrange(25)))


def test_every_symbol_has_its_documented_place() -> None:
    """Guards trained checkpoints: moving one symbol makes all of them wrong."""
    assert len(VOCABULARY) == len(IDS) == TOKENIZER.vocab_size == 128
    assert VOCABULARY[:8] == ("<pad>", "<mask>", "<bos>", "<eos>", "<sep>", "<arg>", "<none>", "<nl>")
    assert VOCABULARY[8:11] == ("<think>", "<ans>", "<lud>")
    operations = "copy reverse sort shuffle replace_index replace_random insert_index insert_random"
    operations += " remove_index remove_random repeat_each repeat_list latin sudoku countdown"
    assert VOCABULARY[16:31] == tuple(operations.split())
    assert VOCABULARY[40:56] == tuple(f"#{i}" for i in range(16))
    assert VOCABULARY[56:66] == tuple("0123456789")
    assert VOCABULARY[66:76] == tuple("+-*/=(),:.")
    assert VOCABULARY[76:] == tuple(string.ascii_uppercase + string.ascii_lowercase)
    assert (TOKENIZER.pad_id, TOKENIZER.mask_id, TOKENIZER.bos_id, TOKENIZER.eos_id) == (0, 1, 2, 3)


def test_ten_thousand_texts_come_back() -> None:
    """Guards the one-symbol-one-token rule, on which every closed form stands."""
    rng = random.Random(0)
    for text in (random_text(rng) for _ in range(10_000)):
        ids = TOKENIZER.encode(text)
        assert len(ids) == len(text.split())
        assert TOKENIZER.decode(ids) == text


def test_special_symbols_can_be_left_out() -> None:
    """Guards answers, which end in end-of-text symbols."""
    ids = TOKENIZER.encode("<bos> A b <eos> <pad> <mask> <nl>")
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "A b"


@pytest.mark.parametrize("text", ["A AB C", "A é C", "A <unk> C"])
def test_an_unknown_symbol_is_named_with_its_place(text: str) -> None:
    """Guards against silent unknown tokens."""
    with pytest.raises(DataError, match=f"{text.split()[1]}.* at place 1"):
        TOKENIZER.encode(text)


def test_the_transformers_form_is_the_same_tokenizer() -> None:
    """Guards users who load the checkpoints elsewhere."""
    fast, rng = TOKENIZER.to_transformers(), random.Random(1)
    for text in (random_text(rng) for _ in range(300)):
        ids = TOKENIZER.encode(text)
        assert fast(text)["input_ids"] == ids
        assert fast.decode(ids) == text
        assert fast.decode(ids, skip_special_tokens=True) == TOKENIZER.decode(ids, skip_special_tokens=True)
    assert (fast.pad_token_id, fast.mask_token_id, fast.bos_token_id, fast.eos_token_id) == (0, 1, 2, 3)


def test_the_chat_template_is_the_prompt_layout() -> None:
    """Guards the layout against extra blanks, generation prompts and lost end symbols."""
    fast = TOKENIZER.to_transformers()
    turns = [{"role": "user", "content": "copy <none> <none> <arg> A B"}, {"role": "assistant", "content": "A B"}]
    prompt = "<bos> copy <none> <none> <arg> A B <sep>"
    for messages, text in ((turns[:1], prompt), (turns, prompt + " A B <eos>")):
        assert fast.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == text
        ids = fast.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ids == TOKENIZER.encode(text)
