"""Beam search: transformers' own on the same weights, greedy decoding at one beam, and its cost."""

from pathlib import Path

import pytest
import torch

from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.records import Ledger
from harness.errors import FieldError
from methods.autoregressive.beam import Beams, OfBeam
from methods.autoregressive.greedy import Greedy
from tests.engine.causal import PROMPTS, random_causal, run
from tests.models.test_hf_causal import loaded, write

STOPS = (4, 9)
ENDS = list(range(0, 258, 9))


def beam(num_beams: int, length_penalty: float = 1.0) -> AutoregressiveMethod:
    """Return the method."""
    branching = Beams(num_beams=num_beams, length_penalty=length_penalty)
    return AutoregressiveMethod(acceptor=OfBeam(), branching=branching)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("num_beams", [2, 4, 7])
def test_it_is_the_beam_search_of_transformers(num_beams: int, length_penalty: float, tmp_path: Path):
    """Guards what is kept, how ended hypotheses count, when a sample is done, and the length that scores it."""
    own = write(tmp_path, eos_token_id=ENDS)
    model = loaded(tmp_path)
    ends = list(model.spec.stop_ids)
    prompts = [[3], [5, 1, 4], [2, 7, 1, 8, 2, 8], [6, 60], [90, 1, 2, 3], [40, 41], [99], [12, 13, 14]]
    made = run(model, beam(num_beams, length_penalty), prompts, 14)
    lengths = set()
    for prompt, one in zip(prompts, made, strict=True):
        expected = own.generate(
            torch.tensor([prompt]),
            num_beams=num_beams,
            length_penalty=length_penalty,
            early_stopping=False,
            do_sample=False,
            max_new_tokens=14,
            eos_token_id=ends,
            pad_token_id=257,
        )[0, len(prompt) :].tolist()
        stopped = [place for place, token in enumerate(expected) if token in ends]
        expected = expected[: stopped[0] + 1] if stopped else expected
        assert list(one.tokens) == expected, f"prompt {prompt}"
        lengths.add(len(expected))
    assert len(lengths) > 1 or length_penalty > 1


def test_one_beam_is_greedy_decoding():
    """Guards sums that would prefer another token than the best one."""
    model = random_causal(stop_ids=STOPS)
    greedy, one = (run(model, m, PROMPTS) for m in (AutoregressiveMethod(acceptor=Greedy()), beam(1)))
    assert [made.tokens for made in one] == [made.tokens for made in greedy]


@pytest.mark.parametrize("num_beams", [2, 5])
def test_a_row_does_not_depend_on_the_others(num_beams: int):
    """Guards hypotheses that are kept beside those of other samples."""
    model = random_causal(stop_ids=STOPS)
    together = run(model, beam(num_beams), PROMPTS)
    alone = [run(model, beam(num_beams), [prompt])[0] for prompt in PROMPTS]
    assert [(one.tokens, one.tokens_generated) for one in together] == [
        (one.tokens, one.tokens_generated) for one in alone
    ]


def test_a_hypothesis_is_charged_to_its_sample():
    """Guards the counters: the prompt once, then a row for each beam, and a token for each row."""
    ledger = Ledger()
    (made,) = run(random_causal(), beam(3), PROMPTS[:1], 6, ledger=ledger)
    (counts,) = ledger.counts([0])
    assert (counts.nfe, counts.nfe_total, counts.nfe_prefill) == (6, 1 + 3 * 5, 1)
    assert made.tokens_generated == 3 * 6


def test_no_beam_is_refused():
    """Guards the line that names key, value and range."""
    with pytest.raises(FieldError, match="num_beams=0: must be from 1 to 4096"):
        Beams(num_beams=0)
