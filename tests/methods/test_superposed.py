"""Superposed Decoding: a plain reading of its rule, greedy decoding at one draft, and its cost."""

import json
import math

import pytest
import torch

from harness.config import build
from harness.config.compatibility import fit_decoding
from harness.config.composition import compose
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.model import ForwardRequest, Part
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError, FieldError
from methods.autoregressive.ngrams import Ngrams
from methods.autoregressive.superposed import BestDrafts, Superposed, Superposition
from tests.engine.causal import PROMPTS, continue_greedily, random_causal, run

LENGTH, STOP = 10, 4
MODEL = random_causal(stop_ids=(STOP,))
DOCUMENTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [8, 7, 6, 5, 4, 3, 2, 1, 0], [1, 4, 1, 4, 4, 2], [10, 11, 12, 13, 14]]
WEIGHTS = (0.1, 0.4, 0.3)


def superposed(**knobs: object) -> AutoregressiveMethod:
    """Return the method at temperature 1, so that drafts differ."""
    acceptor = Superposed(**{"T": 1.0} | knobs)  # type: ignore[arg-type]
    return AutoregressiveMethod(acceptor=acceptor, feed=Superposition(), revision=BestDrafts())


@torch.inference_mode()
def behind(embedded: list[torch.Tensor]) -> list[float]:
    """Return the logits behind embeddings, by a full forward."""
    states_BTC = torch.stack(embedded)[None]
    tokens_BT = torch.zeros(states_BTC.shape[:2], dtype=torch.int64)
    return MODEL.forward(ForwardRequest(tokens_BT, part=Part(states_BTC=states_BTC)))[0, -1].tolist()


def frequency(context: list[int], token: int) -> float | None:
    """Count, in the simplest way, how often a token follows a context."""
    length = len(context)
    seen = [d[i + length] for d in DOCUMENTS for i in range(len(d) - length) if d[i : i + length] == context]
    return seen.count(token) / len(seen) if seen else None


def reading(prompt: list[int], k: int, n: int, A: float, T: float, *, smoothed: bool) -> list[list[int]]:
    """Return the k answers by the rule as the paper and the released code have it, draft by draft."""
    embed = MODEL.transformer.embedding.weight
    fed = [embed[token] for token in prompt]
    alive: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for _ in range(LENGTH):
        logits = behind(fed)
        best = sorted(range(len(logits)), key=lambda token: -logits[token])[:n]
        total = sum(math.exp(logits[token] / T) for token in best)
        pairs = []
        for score, draft in alive:
            log_p = {token: logits[token] / T - math.log(total) for token in best}
            if smoothed:
                g = dict.fromkeys(best, 0.0)
                for length, weight in enumerate(WEIGHTS, start=1):
                    context = (prompt + draft)[-length:]
                    if len(context) == length:
                        for token in best:
                            g[token] += weight * (frequency(context, token) or 0.0)
                for token in best:
                    mixed = -200.0 if not any(g.values()) else A * math.log(g[token]) if g[token] else -math.inf
                    log_p[token] = (1 - A) * log_p[token] + mixed
            pairs += [(max(score + log_p[token], -1e7), [*draft, token]) for token in best]
        pairs = sorted(pairs, key=lambda pair: -pair[0])[: 2 * k]
        finished += [pair for pair in pairs if pair[1][-1] == STOP]
        finished = sorted(finished, key=lambda pair: -pair[0])[:k]
        alive = [pair for pair in pairs if pair[1][-1] != STOP][:k]
        weights = torch.tensor([score for score, _ in alive], dtype=torch.float64).softmax(0)
        fed.append(sum(w * embed[draft[-1]] for w, (_, draft) in zip(weights, alive, strict=True)))  # type: ignore[arg-type]
    return [draft for _, draft in sorted(alive + finished, key=lambda one: -one[0] / len(one[1]))[:k]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write the documents to a file."""
    file = tmp_path_factory.mktemp("corpus") / "documents.json"
    file.write_text(json.dumps(DOCUMENTS))
    return str(file)


@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_drafts_are_those_of_a_plain_reading(k: int, smoothed: bool, corpus: str) -> None:
    """Guards weights of the blend, scores, n-grams and their penalty, the pool, and the order of the answers."""
    method = superposed(k=k, n=3 * k, weights=WEIGHTS, corpus_file=corpus if smoothed else None)
    made = run(MODEL, method, PROMPTS, LENGTH)
    said = [[list(one.tokens), *(list(other.tokens) for other in one.beside)] for one in made]
    assert said == [reading(prompt, k, 3 * k, 0.54, 1.0, smoothed=smoothed) for prompt in PROMPTS]
    stopped = sum(answer[-1] == STOP for answers in said for answer in answers)
    assert 0 < stopped < k * len(PROMPTS)


def test_one_draft_is_greedy_decoding_up_to_its_stop() -> None:
    """Guards the blend of one token, and temperature, which must change nothing then; a stop ends no draft."""
    for model in (random_causal(), MODEL):
        made = run(model, superposed(k=1, n=2, T=0.06), PROMPTS, LENGTH)
        for prompt, one in zip(PROMPTS, made, strict=True):
            greedy = continue_greedily(model, prompt, LENGTH)
            end = greedy.index(STOP) if STOP in greedy and model is MODEL else LENGTH
            assert one.tokens[:end] == greedy[:end]
            assert not one.beside and not one.others


@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_call_serves_all_drafts(k: int) -> None:
    """Guards the cost: one row and one position per call whatever k is, and every token of every draft counted."""
    ledger = Ledger()
    (made,) = run(MODEL, superposed(k=k, n=2 * k), PROMPTS[1:2], LENGTH, ledger=ledger)
    (counts,) = ledger.counts([0])
    assert (counts.nfe, counts.nfe_total, counts.query_tokens) == (LENGTH, LENGTH, len(PROMPTS[1]) + LENGTH - 1)
    assert made.tokens_generated == k * LENGTH
    assert len(made.beside) == k - 1


def test_a_row_does_not_depend_on_the_others() -> None:
    """Guards drafts that are kept beside those of other rows, also when some of these have left."""
    together = run(MODEL, superposed(), PROMPTS, LENGTH)
    alone = [run(MODEL, superposed(), [prompt], LENGTH)[0] for prompt in PROMPTS]
    assert [(one.tokens, one.beside[0].tokens, one.tokens_generated) for one in together] == [
        (one.tokens, one.beside[0].tokens, one.tokens_generated) for one in alone
    ]


def test_ngrams_are_weighed_frequencies() -> None:
    """Guards contexts that are too long for the text, and those that the corpus does not have."""
    ngrams = Ngrams.of([[1, 2, 3], [1, 2, 4], [2, 4]], 2)
    assert ngrams.blended([1, 2], [3, 4, 5], (0.3, 0.6)) == pytest.approx([0.1 + 0.3, 0.2 + 0.3, 0])
    assert ngrams.blended([2], [3, 4], (0.3, 0.6)) == pytest.approx([0.1, 0.2])
    assert ngrams.blended([9, 2], [3, 4], (0.3, 0.6)) == pytest.approx([0.1, 0.2])
    assert ngrams.blended([9], [3, 4], (0.3, 0.6)) == [0, 0]


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"k": 0}, "k=0: must be from 1 to 4096"),
        ({"T": 0.0}, r"T=0.0: must be above 0"),
        ({"k": 5}, "n=9: must be at least 10"),
        ({"A": 1.0}, r"A=1.0: must lie in \[0, 1\)"),
        ({"weights": ()}, r"weights=\[\]: must be a list"),
        ({"corpus_file": "nowhere.json"}, "corpus_file=nowhere.json: must name a JSON list of documents"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict[str, object], told: str) -> None:
    """Guards the line that names key, value and range."""
    with pytest.raises(FieldError, match=told):
        Superposed(**knobs)  # type: ignore[arg-type]


def test_a_model_that_takes_no_blend_and_a_drafter_are_refused() -> None:
    """Guards bad input before a model loads."""
    with pytest.raises(ConfigError, match=r"^model=oracle_ar: runs all of its layers or none"):
        fit_decoding(compose(["model=oracle_ar", "method=superposed"]), build.Builder())
    with pytest.raises(ConfigError, match="use drafter=empty"):
        build.build_method(compose(["model=tiny_ar", "method=superposed", "method/drafter=prompt_lookup"]))
