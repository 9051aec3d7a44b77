"""DFlash in the loop: transformers' own rounds, token for token, a plain reading of a block, and what a block costs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers.generation.candidate_generator import DFlashTokenCandidateGenerator

from harness.config.compatibility import check
from harness.config.composition import compose
from harness.engine.autoregressive.drafting import Round
from harness.engine.autoregressive.method import AutoregressiveMethod, FixedLength
from harness.engine.shared.assistant import Context
from harness.engine.shared.generation import DecodeError
from harness.engine.shared.model import NORMED, ForwardRequest, Models, Part, Taps
from harness.engine.shared.records import Counts, Ledger, Role
from harness.errors import ConfigError, DataError
from harness.models import random_assistant
from harness.models.block_drafter import Assistant
from harness.models.hf_causal import CausalModel
from harness.models.public import assistant as published
from methods.autoregressive.dflash import BlockDrafter, WholeLength
from methods.autoregressive.speculative import Rejection
from tests.engine.causal import PROMPTS, VOCABULARY, continue_greedily, random_causal, run
from tests.methods import test_hf_dflash as theirs
from tests.methods.laws import TINY, TINY_PROMPT, law_of, likelihood
from tests.models import test_hf_causal as checkpoints

LENGTH, BLOCK, LAYERS = 12, 4, 2
TARGET = random_causal()
ANSWERS = [continue_greedily(TARGET, prompt, LENGTH) for prompt in PROMPTS]
FEW = 6
"""So few tokens that drafts of random weights stand now and then."""


def dflash(temperature: float = 0.0) -> AutoregressiveMethod:
    """Return the method."""
    drafter = BlockDrafter(temperature=temperature)
    return AutoregressiveMethod(
        acceptor=Rejection(temperature=temperature), drafter=drafter, draft_length=WholeLength()
    )


def assistant(**changes: object) -> Assistant:
    """Return a random assistant of the random target."""
    told = {"name": "assistant", "width": 16, "heads": 2, "reads": (0, 1), "block_size": BLOCK, "mask_id": 18}
    told |= {"max_length": 64, "dtype": torch.float64, "layers": LAYERS}
    model = random_assistant.load(**told | changes).model  # type: ignore[arg-type]
    assert isinstance(model, Assistant)
    return model


@torch.inference_mode()
def block(draft: Assistant, text: Sequence[int]) -> list[int]:
    """Return what an assistant drafts behind a text, all of it read at once and nothing kept."""
    depths, count = [1, NORMED], len(text) - 1
    taps, spec = Taps(depths), draft.spec
    TARGET.forward(ForwardRequest(torch.tensor([text[:-1]]), part=Part(taps=taps)))
    seen, noise = torch.arange(count)[None], torch.tensor([[text[-1], *[spec.mask_id] * (BLOCK - 1)]])
    states = torch.cat([taps.states[depth] for depth in depths], -1)
    request = ForwardRequest(
        noise,
        positions_BT=count + torch.arange(BLOCK)[None],
        kv=draft.new_store(1, count + BLOCK),
        context=Context(states_BNC=states, positions_BN=seen, slots_BN=seen, ends=TARGET),
    )
    return draft.forward(request)[0, 1:].argmax(-1).tolist()


def test_rounds_and_work_are_those_of_a_plain_reading() -> None:
    """Guards losslessness, what is kept of the text between rounds, and what is charged: a block a round."""
    draft, ledger, drafts = assistant(), Ledger(), [list[list[int]]() for _ in PROMPTS]

    def watch(completed: Round) -> None:
        rows = zip(completed.before.sample_B.tolist(), completed.proposal.tokens_BK.tolist(), strict=True)
        for (sample, tokens), count in zip(rows, completed.n_drafted_B.tolist(), strict=True):
            drafts[sample] += [tokens[:count]] if count else []

    made = run(Models(TARGET, draft), dflash(), PROMPTS, ledger=ledger, observers=[watch])
    assert [one.tokens for one in made] == ANSWERS
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        emitted, expected, said = 1, [(Role.PREFILL, len(prompt), len(prompt))], []
        while emitted < len(answer):
            room, text = min(BLOCK - 1, len(answer) - emitted - 1), [*prompt, *answer[:emitted]]
            guess = block(draft, text)[:room] if room else []
            said += [guess] if room else []
            expected += [(Role.DRAFT, BLOCK, len(text) - 1 + BLOCK)] if room else []
            expected.append((Role.VERIFY, 1 + room, 0))
            emitted += next((k for k in range(room) if guess[k] != answer[emitted + k]), room) + 1
        assert drafts[row] == said
        mine = [(r, r.sample_B.tolist().index(row)) for r in ledger.records if row in r.sample_B.tolist()]
        seen = [(r.role, int(r.query_B[at]), r.keys_B[at]) for r, at in mine]
        assert [query for _, query, _ in seen] == [query for _, query, _ in expected]
        assert [float(keys) for role, _, keys in seen if role is Role.DRAFT] == [
            keys for role, _, keys in expected if role is Role.DRAFT
        ]
        assert all(int(r.head_B[at]) == BLOCK - 1 and r.layers == LAYERS for r, at in mine if r.role is Role.DRAFT)
    counts, found = ledger.counts(range(len(PROMPTS))), ledger.drafting(range(len(PROMPTS)))
    for work, drafting in zip(counts, found, strict=True):
        assert drafting is not None and drafting.query_tokens_draft == BLOCK * work.nfe_draft
        assert drafting.layer_loads_draft == LAYERS * work.nfe_draft and work.nfe_draft <= drafting.rounds


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rows", [3, 8])
def test_a_row_does_not_depend_on_the_others(rows: int, temperature: float) -> None:
    """Guards contexts of unequal length, rows without room beside others, and random numbers."""
    models, counted = Models(TARGET, assistant()), []
    for parts in ([range(rows)], [[row] for row in range(rows)]):
        rows_of: list[object] = []
        for part in parts:
            ledger, prompts = Ledger(), [PROMPTS[row] for row in part]
            made = run(models, dflash(temperature), prompts, seeds=[100 + r for r in part], ledger=ledger)
            counts = ledger.counts(range(len(part)))
            rows_of += [(m.tokens, m.decided_at, m.tokens_generated, c) for m, c in zip(made, counts, strict=True)]
        counted.append(rows_of)
    assert counted[0] == counted[1]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_answers_shorter_than_a_block(length: int) -> None:
    """Guards blocks that reach behind the end of what there is room for."""
    made = run(Models(TARGET, assistant()), dflash(), PROMPTS, length)
    assert [one.tokens for one in made] == [answer[:length] for answer in ANSWERS]


@pytest.mark.parametrize("drafts", [0, 1, 2])
def test_fewer_drafts_than_the_block_has_may_be_scored(drafts: int) -> None:
    """Guards a length that cuts blocks, and answers that hang on none."""
    method = AutoregressiveMethod(acceptor=Rejection(), drafter=BlockDrafter(), draft_length=FixedLength(length=drafts))
    ledger = Ledger()
    assert [one.tokens for one in run(Models(TARGET, assistant()), method, PROMPTS, ledger=ledger)] == ANSWERS
    widest = {int(r.query_B.max()) for r in ledger.records if r.role is Role.VERIFY}
    assert not widest if not drafts else max(widest) == 1 + drafts


def test_answers_have_the_law_of_the_target() -> None:
    """Guards marginal laws of a block against the joint law of the answers, by enumeration."""
    rows, stand = 8_000, list[int]()
    made = run(
        Models(TINY, assistant(mask_id=4)), dflash(1.0), [TINY_PROMPT] * rows, 4, seeds=range(rows),
        observers=[lambda completed: stand.append(int(completed.n_accepted_B.sum()))],
    )  # fmt: skip
    assert sum(stand) > rows / 20
    assert likelihood(made, law_of(Rejection(temperature=1.0), 4)) > 1e-3


def test_logits_of_an_assistant_that_are_not_numbers_name_it() -> None:
    """Guards a broken assistant against being taken for a bad one, in silence."""
    draft = assistant()
    torch.nn.init.constant_(draft.inner.norm.weight, torch.nan)
    with pytest.raises(DecodeError, match=r"model assistant returned logits .*NaN"):
        run(Models(TARGET, draft), dflash(), PROMPTS[:1])


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"reads": (0, 2)}, "reads layer 2, and the target has 2"),
        ({"mask_id": VOCABULARY}, f"masks with a token that is none of {VOCABULARY}"),
        ({"width": 32}, "reads states of 32 channels, and the target has 16"),
    ],
)
def test_another_target_is_refused(changes: dict[str, object], refusal: str) -> None:
    """Guards a line in place of a traceback where files had not told."""
    with pytest.raises(ConfigError, match=f"^model@draft=assistant: {refusal}; use the assistant of this target"):
        run(Models(TARGET, assistant(**changes)), dflash(), PROMPTS[:1])


def test_an_assistant_decodes_nothing_alone() -> None:
    """Guards calls that show it nothing of a target."""
    with pytest.raises(TypeError, match="drafts from states of its target, and from nothing else"):
        assistant().forward(ForwardRequest(torch.tensor([[1]])))


CLASSES: dict[str, dict[str, object]] = {
    "Llama": {"num_hidden_layers": 4},
    "GPT2": {"n_layer": 4},
    # Not built as these are: the class itself shows its states.
    "Gemma2": {"num_hidden_layers": 4},
}
ASSISTANTS: dict[str, dict[str, object]] = {
    "windows": {"sliding_window": 6},
    "whole text": {"layer_types": ["full_attention", "full_attention"]},
    "both, longer blocks": {
        "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 9, "block_size": 7,
        "target_layer_ids": [3, 1],
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=CLASSES)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CausalModel:
    """Return a random model of a class, of few tokens, none of which ends an answer."""
    folder = tmp_path_factory.mktemp(request.param)
    few = {"vocab_size": FEW, "pad_token_id": 0}
    checkpoints.write(folder, request.param, **CLASSES[request.param] | few)
    model = checkpoints.loaded(folder, torch.float64)
    assert (model.layers is None) == (request.param == "Gemma2")
    return model


@contextmanager
def drafts_of_transformers() -> Iterator[list[list[int]]]:
    """Note what transformers' generator drafts, call by call; nothing for calls that draft nothing."""
    made, ask = list[list[int]](), DFlashTokenCandidateGenerator.get_candidates

    def noted(self: object, input_ids: torch.Tensor, *arguments: object, **named: object) -> object:
        said = ask(self, input_ids, *arguments, **named)  # type: ignore[arg-type]
        made.append(said[0][0, input_ids.shape[1] :].tolist())
        return said

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DFlashTokenCandidateGenerator, "get_candidates", noted)
        yield made


@pytest.mark.parametrize("changes", ASSISTANTS)
def test_rounds_are_those_of_transformers(target: CausalModel, changes: str, tmp_path: Path) -> None:
    """Guards positions, context and what is kept of both: drafts, what stands, and calls, token for token."""
    folder, length, stood = theirs.write(tmp_path, **ASSISTANTS[changes], mask_token_id=FEW - 1), 30, 0
    ours = published.load(name="assistant", hub_id=None, max_length=256, path=str(folder), dtype=torch.float64).model
    for text in (*theirs.PROMPTS[1:4], range(18)):
        prompt = [token % FEW for token in text]
        ledger, other, rounds = Ledger(), Ledger(), list[tuple[list[int], int]]()

        def watch(completed: Round, rounds: list[tuple[list[int], int]] = rounds) -> None:
            count = int(completed.n_drafted_B)
            rounds.append((completed.proposal.tokens_BK[0, :count].tolist(), int(completed.n_accepted_B)))

        (made,) = run(Models(target, ours), dflash(), [prompt], length, ledger=ledger, observers=[watch])
        with drafts_of_transformers() as drafted:
            given = {"gen_length": length, "seeds": [0], "ledger": other}
            (expected,) = theirs.answered_to(target, theirs.drafter(folder), [prompt], **given)
        assert made.tokens == expected.tokens
        # What there is no room for is scored there, and cut.
        emitted, scored = 0, []
        for tokens, (_, accepted) in zip(drafted, rounds, strict=True):
            scored.append(tokens[: max(0, length - emitted - 1)])
            emitted += accepted + 1
        assert [tokens for tokens, _ in rounds] == scored
        ends = [max(at for at, number in enumerate(expected.decided_at) if number == one) for one in range(len(rounds))]
        assert [accepted for _, accepted in rounds[1:]] == [b - a - 1 for a, b in pairwise(ends)]
        mine, its = _calls(ledger.counts([0])[0]), _calls(other.counts([0])[0])
        assert mine == its
        assert [float(r.keys_B) for r in ledger.records if r.role is Role.DRAFT] == [
            float(r.keys_B) for r in other.records if r.role is Role.DRAFT
        ]
        stood += sum(accepted for _, accepted in rounds)
    # With its head tied GPT-2 says the last token again and again, which hardly any random assistant drafts.
    assert stood > 3 or "GPT2" in type(target.inner).__name__


def _calls(counts: Counts) -> tuple[int, int, int]:
    return counts.nfe, counts.nfe_draft, counts.nfe_prefill


def test_a_published_assistant_is_read_strictly(tmp_path: Path) -> None:
    """Guards tensors that are missing or unknown, and what config.json says beside what is known."""
    from safetensors.torch import load_file, save_file

    folder = theirs.write(tmp_path)
    told = {"name": "mine", "hub_id": None, "path": str(folder), "max_length": 256}
    published.load(**told)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^model\.max_length=512: .* has 256 positions; use 256 or less"):
        published.load(**told | {"max_length": 512})  # type: ignore[arg-type]
    weights, config = folder / "model.safetensors", (folder / "config.json").read_text()
    tensors = load_file(weights)
    save_file({name: tensor for name, tensor in tensors.items() if name != "encoder.fc.weight"}, weights)
    with pytest.raises(DataError, match=r"tensor encoder\.fc\.weight is missing"):
        published.load(**told)  # type: ignore[arg-type]
    for change, refusal in {
        '"block_size": 4': ('"block_size": 1', r"block_size=1: must be from 2 to 4096"),
        '"hidden_act": "silu"': ('"hidden_act": "gelu"', r"hidden_act=\"gelu\": the loader knows 'silu' only"),
        '"model_type": "muse_glimmer_assistant"': ('"model_type": "llama"', "model_type"),
    }.items():
        assert change in config
        (folder / "config.json").write_text(config.replace(change, refusal[0]))
        with pytest.raises(DataError, match=refusal[1]):
            published.load(**told)  # type: ignore[arg-type]


def test_pairs_that_cannot_be_are_refused_before_they_are_loaded(tmp_path: Path) -> None:
    """Guards a line of advice for each kind of pair: roles, kinds, libraries, shapes, targets without states."""
    checkpoints.write(tmp_path / "target", "Llama", **CLASSES["Llama"])
    theirs.write(tmp_path / "assistant")
    embedded = ["model=tiny_ar", "method=dflash", "task=list_sort"]
    on = ["model=hf_causal", f"model.path={tmp_path / 'target'}", "task.renderer=chat", "task.template=own-1"]
    on += ["model.max_length=256", f"draft.path={tmp_path / 'assistant'}", "draft.max_length=256"]
    check(compose([*embedded, "model@draft=random_dflash"]))
    check(compose([*on, "method=dflash", "model@draft=dflash_drafter"]))
    for asked, refusal in (
        (embedded, r"^model@draft=null: method=dflash asks a model for its drafts; .* model@draft=random_dflash"),
        ([*embedded, "model@draft=tiny_ar_draft"], r"is causal, and method=dflash cannot ask it"),
        (
            [*on, "method=dflash", "model@draft=hf_dflash_drafter"],
            r"drafts for transformers' own .*, such as model@draft=dflash_drafter$",
        ),
        ([*on, "method=hf_dflash", "model@draft=dflash_drafter"], r"is transformers' own .* use hf_dflash_drafter$"),
        (
            [*embedded, "model@draft=random_dflash", "draft.loader.width=64"],
            r"^model@draft=random_dflash: reads states of 64 channels, and tiny_ar has 128; use the assistant of this",
        ),
        ([*embedded, "model@draft=random_dflash", "draft.loader.reads=[4]"], r"reads layer 4 .*, and tiny_ar has 4"),
        (
            ["model=oracle_ar", "method=dflash", "task=list_sort", "model@draft=random_dflash"],
            r"^model=oracle_ar: shows no states of its layers, and method=dflash drafts from them; use .*tiny_ar",
        ),
    ):
        with pytest.raises(ConfigError, match=refusal):
            check(compose(asked))
