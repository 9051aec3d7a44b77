"""Prompts reach a published model as its authors render them, and answers come back without special tokens."""

import json
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.models.text import TextTokenizer, read
from tests.models.public import miniature
from tests.models.public.miniature import BYTES, KINDS

END = len(BYTES)
ASK = [{"role": "user", "content": " Sort it. "}]
TALK = [*ASK, {"role": "assistant", "content": "Done."}, {"role": "user", "content": "Again."}]


def tokenizer(folder: Path, family: str, *, add_bos: bool = False) -> TextTokenizer:
    miniature.write_tokenizer(folder, KINDS[family])
    return TextTokenizer(read(folder), where="here", stop_ids=(END + 1, END + 5), add_bos=add_bos)


def test_a_chat_for_llada_is_rendered_as_published(tmp_path: Path) -> None:
    """Guards the rendered text: one begin token, headers as single tokens, and an open assistant turn."""
    made = tokenizer(tmp_path, "llada")
    text = (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nSort it.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert made.render(ASK) == text
    ids = made.encode_prompt(ASK)
    assert ids[:2] == [END, END + 3]
    assert ids.count(END) == 1
    assert made.inner.decode(ids) == text
    assert made.render(TALK).count("<|start_header_id|>") == 4


@pytest.mark.parametrize("family", ["dream", "sdar"])
def test_a_chat_for_qwen_is_rendered_as_published(family: str, tmp_path: Path) -> None:
    """Guards both ways of publishing a tokenizer; Dream's names a class of its own code, which is never run."""
    made = tokenizer(tmp_path, family)
    assert made.render(ASK) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n Sort it. <|im_end|>\n<|im_start|>assistant\n"
    )
    assert made.encode_prompt(ASK)[0] == END + 1


@pytest.mark.parametrize(("family", "opened"), [("llada", "<|end_header_id|>\n\n"), ("dream", "assistant\n")])
def test_an_answer_that_was_begun_goes_on(family: str, opened: str, tmp_path: Path) -> None:
    """Guards prompts that begin the answer: a closed turn, or a lost line end, makes the model start anew."""
    begun = "Here it is:\n```python\n"
    text = tokenizer(tmp_path, family).render([*ASK, {"role": "assistant", "content": begun}])
    assert text.endswith(opened + begun)
    assert text.count("assistant<" if family == "llada" else "assistant\n") == 1


def test_a_whole_prompt_is_taken_as_it_stands(tmp_path: Path) -> None:
    """Guards completions: nothing is added but the begin token where the model was evaluated with one."""
    plain, begun = tokenizer(tmp_path, "dream"), tokenizer(tmp_path, "dream", add_bos=True)
    assert plain.decode(plain.encode_prompt("def f(x):\n")) == "def f(x):\n"
    assert begun.encode_prompt("a b") == [END + 3, *plain.encode_prompt("a b")]
    assert begun.encode("a b") == plain.encode("a b")


def test_an_answer_ends_before_its_first_stop_token(tmp_path: Path) -> None:
    """Guards grading against the filler behind an answer, and blanks against being tidied away."""
    made = tokenizer(tmp_path, "llada")
    ids = made.encode("x =  1 , y .")
    assert made.decode([*ids, END + 5, *made.encode("junk"), END + 1]) == "x =  1 , y ."
    assert made.decode([END + 3, *ids]) == "x =  1 , y ."
    assert made.decode([]) == ""


def test_a_model_without_a_chat_template_says_so(tmp_path: Path) -> None:
    """Guards base models against turns that they never saw."""
    miniature.write_tokenizer(tmp_path, KINDS["llada"])
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}))
    with pytest.raises(DataError, match="here: no chat template"):
        TextTokenizer(read(tmp_path), where="here", stop_ids=()).encode_prompt(ASK)


def test_a_template_that_refuses_turns_says_why(tmp_path: Path) -> None:
    """Guards against a traceback out of jinja."""
    miniature.write_tokenizer(tmp_path, KINDS["llada"])
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["chat_template"] = "{{ raise_exception('system turns only') }}"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"refuses these turns \(system turns only\)"):
        TextTokenizer(read(tmp_path), where="here", stop_ids=()).encode_prompt(ASK)


def test_missing_and_damaged_tokenizers_are_named(tmp_path: Path) -> None:
    """Guards a partial download."""
    with pytest.raises(DataError, match=r"no tokenizer \(tokenizer\.json"):
        read(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="not a readable tokenizer"):
        read(tmp_path)


def test_an_empty_last_turn_opens_behind_a_closed_one(tmp_path: Path) -> None:
    """Guards prompts whose last turn is the assistant's and closed, as OpenCompass writes them."""
    made = tokenizer(tmp_path, "llada")
    closed = [*ASK, {"role": "assistant", "content": "[BEGIN]\n"}]
    assert made.render([*closed, {"role": "assistant", "content": ""}]) == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nSort it.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[BEGIN]<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert made.render(closed) == made.render(ASK) + "[BEGIN]\n"
