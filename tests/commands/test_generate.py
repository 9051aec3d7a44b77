"""One's own prompt: its answer, its counts and its steps, and no trace in a store."""

import io
import json
import sys
from pathlib import Path

import pytest

from harness.commands import generate
from harness.commands.generate import main, read
from harness.errors import ConfigError, DataError
from tests.conftest import RunDecbench
from tests.models.test_hf_causal import write

SORT = "<bos> sort A C B <sep>"
EXTERNAL = ["model=external", "model.target=tests.models.third_party:masked_diffusion", "model.tokenizer=symbols"]


def test_an_answer_is_printed_with_its_counts(call_decbench: RunDecbench, tmp_path: Path):
    """Guards the two lines of a plain answer, and that nothing is stored."""
    done = call_decbench("generate", SORT, "model=random_mdm", "method=llada", "method.steps=4", "gen_length=8")
    answer, counts = done.stdout.splitlines()
    assert done.returncode == 0 and len(answer.split()) == 8
    assert counts.startswith(f"calls: 4   query tokens: {4 * (6 + 8)}   tokens: ")
    assert list(tmp_path.iterdir()) == []


def test_every_call_is_a_line(capsys: pytest.CaptureFixture[str]):
    """Guards the steps of a diffusion model: positions and tokens add up to the answer."""
    main([SORT, "model=random_mdm", "method=llada", "method.steps=4", "gen_length=8", "trace=true", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert [line[:16] for line in said["steps"]] == [f"    {call}  2 committed"[:16] for call in (1, 2, 3, 4)]
    words = [word for line in said["steps"] for word in line.split()[3:]]
    committed = {int(place): json.loads(token) for place, token in zip(words[::2], words[1::2], strict=True)}
    assert " ".join(committed[place] for place in range(8)) == said["answer"]
    assert (said["nfe"], said["tokens_canvas"]) == (4, 8)


def test_a_causal_model_commits_its_first_token_with_the_prompt(capsys: pytest.CaptureFixture[str]):
    """Guards rounds, whose rows hold no tokens of their own."""
    main([SORT, "model=tiny_ar", "method=ar_greedy", "trace=true", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["nfe"] == len(said["steps"]) == len(said["answer"].split()) > 2
    shown = [line.split()[1:] for line in said["steps"]]
    assert shown == [["1", "committed", str(p), f'"{s}"'] for p, s in enumerate(said["answer"].split())]


def test_calls_of_somebody_elses_code_are_shown_as_hooks_see_them(capsys: pytest.CaptureFixture[str]):
    """Guards models whose steps nobody sees."""
    main([SORT, *EXTERNAL, "model.module=MASKED", "gen_length=8", "model.kwargs.steps=2", "trace=true"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["    1  target: 1 row of 14 positions", "    2  target: 1 row of 14 positions"]
    assert lines[3].startswith("calls: 2   query tokens: 28   tokens: ")
    assert lines[4] == "not seen: batch composition, cached positions, work outside the module"


def test_a_model_of_text_is_asked_in_its_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Guards the user's turn, the plain text on demand, and a length that fits a text."""
    write(tmp_path)
    asked = ["model=hf_causal", f"model.path={tmp_path}", "model.max_length=256", "method=ar_greedy", "--json"]
    lengths = []
    for turns in ("one", "text"):
        main(["ab", *asked, f"turns={turns}", "gen_length=2"])
        lengths.append(json.loads(capsys.readouterr().out)["query_tokens"])
    assert lengths[0] > lengths[1] >= 2
    with pytest.raises(ConfigError, match="gen_length=256: model=hf_causal has 256 positions"):
        main(["ab", *asked])


def test_a_prompt_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch):
    """Guards pipes: everything but the last line end is the prompt."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\nb\n"))
    assert read(["-", "seed=1"]) == generate.Request(prompt="a\nb", overrides=["seed=1"], trace=False, turns="one")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), "utf-8"))
    with pytest.raises(DataError, match=r"standard input: not UTF-8"):
        read(["-"])


def test_a_prompt_may_look_like_a_setting():
    """Guards equations: the first word is the prompt where every word has a key."""
    assert read(["x=3, what is x?", "seed=1"]).prompt == "x=3, what is x?"
    assert read(["seed=1", "what is x?"]).overrides == ["seed=1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], 'a prompt is due: decbench generate "PROMPT"'),
        (["sort", "A"], "sort A: one prompt, in quotes"),
        ([SORT, "trace=yes"], "trace=yes: must be true or false"),
        ([SORT, "task=gsm8k"], "task=gsm8k: is for run; generate asks the prompt that is given"),
        ([SORT, "method=thresold"], "did you mean threshold"),
        ([SORT, "method=threshold", "method.threshold=nan"], "method.threshold=nan: must be a finite number"),
        ([SORT, "method=ar_greedy"], "method=ar_greedy: does not run on model=tiny_mdm"),
        ([""], "prompt: the prompt is empty"),
        (["sort Ä"], "symbol 'Ä' at place 1"),
        ([f"{'A ' * 120}"], "prompt: 120 prompt tokens and gen_length=16 exceed the 128 positions"),
        ([SORT, "model=served", "model.url=here"], "model.url=here: is no address"),
    ],
)
def test_what_cannot_be_asked_ends_in_one_line(call_decbench: RunDecbench, arguments: list[str], message: str):
    """Guards the same errors as those of run."""
    done = call_decbench("generate", *arguments)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
