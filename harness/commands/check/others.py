"""Tasks and models, as what is tried of them."""

from collections.abc import Iterator
from functools import partial

import torch

from harness.commands.check.command import Trial
from harness.commands.check.methods import built
from harness.commands.check.rules import RULES
from harness.commands.check.subject import LENGTH, Subject
from harness.config.build import build_task, load_model
from harness.config.composition import compose
from harness.engine.shared.model import ForwardRequest, LanguageModel, ModelSpec
from harness.models.tokenizer import SymbolTokenizer
from tasks.task import Sample, Score, Task

_DECODER = {"causal": "ar_greedy", "masked_diffusion": "threshold", "block_diffusion": "sdar"}
_GRADED = 3
_NONSENSE = ("", "\x00", "no answer at all", "9" * 50)


def of_task(name: str, overrides: list[str]) -> Iterator[Trial]:
    """Yield what is tried of a task: samples, their names, and verdicts."""
    cfg = compose([f"task={name}", *overrides])
    words = " ".join([f"task={name}", *overrides])

    def build() -> Task:
        return build_task(cfg)

    for rule in (_same_samples, _names_and_prompts, _verdicts, _grading):
        yield Trial(rule=rule.__name__.strip("_"), words=words, run=partial(_with, build, rule))


def _with(build, rule) -> Iterator[str]:
    yield from rule(build)


def _same_samples(build) -> Iterator[str]:
    """Equal settings give equal samples in equal order."""
    first, second = ([(one.id, one.prompt) for one in build().instances()] for _ in range(2))
    if first != second:
        yield "two tasks of equal settings have other samples, or in another order"


def _names_and_prompts(build) -> Iterator[str]:
    """Every sample has an id of its own and a prompt."""
    samples: list[Sample] = list(build().instances())
    if not samples:
        yield "it has no samples"
    ids = [one.id for one in samples]
    if twice := sorted({one for one in ids if ids.count(one) > 1})[:3]:
        yield f"ids are used twice: {', '.join(twice)}"
    if bare := [one.id for one in samples if not one.prompt][:3]:
        yield f"samples without a prompt: {', '.join(bare)}"


def _verdicts(build) -> Iterator[str]:
    """Any text gets a verdict, the same one again, and nonsense is not always right."""
    task, right = build(), []
    for sample in task.instances()[:_GRADED]:
        for text in _NONSENSE:
            one, again = (task.score(sample, text) for _ in range(2))
            if not isinstance(one, Score):
                yield f"score of {sample.id} returns {type(one).__name__}, not a Score"
            elif one != again:
                yield f"score of {sample.id} differs when asked again: {one} and {again}"
            else:
                right.append(one.correct)
    if right and all(right):
        yield "every text is right, the empty one included"


def _grading(build) -> Iterator[str]:
    """Sources are there, and answers fit the length that the task asks for."""
    task = build()
    task.grading()
    for source in task.sources():
        if not isinstance(source, str) and not source.exists():
            yield f"sources: {source} does not exist"
    longest = task.max_target_tokens(SymbolTokenizer()) if getattr(task, "renderer", "") == "tiny" else 0
    if longest > task.gen_length:
        yield f"the longest right answer has {longest} tokens, gen_length is {task.gen_length}"


def of_model(name: str, overrides: list[str]) -> Iterator[Trial]:
    """Yield what is tried of a model: its facts, its calls, and the rules for a method of its kind."""
    cfg = compose([f"model={name}", *overrides, "device.dtype=float64"])
    kind, words = str(cfg.model.kind), " ".join([f"model={name}", *overrides])
    loaded = load_model(cfg)
    model = loaded.model
    yield Trial(rule="facts", words=words, run=partial(_facts, model.spec, kind, int(cfg.model.max_length)))
    if kind not in _DECODER:
        return
    for rule in (_shapes, _rows_apart):
        yield Trial(rule=rule.__name__.strip("_"), words=words, run=partial(rule, model))
    method = built(_DECODER[kind], kind, [])
    prompts = [
        [token % model.spec.vocab_size for token in prompt]
        for prompt in Subject(words="", method=method, model=model).prompts
    ]
    made = Subject(words=words, method=method, model=model, prompts=prompts[:4])
    yield from (Trial(rule=rule, words=words, run=partial(RULES[rule], made)) for rule in RULES)


def _facts(spec: ModelSpec, kind: str, max_length: int) -> Iterator[str]:
    """The spec says what the option says, and its ids are in the vocabulary."""
    if spec.kind.value != kind:
        yield f"it is {spec.kind.value}, its option says {kind}"
    if max_length > spec.max_length:
        yield f"it has {spec.max_length} positions, its option says {max_length}"
    if "diffusion" in kind and kind != "uniform_diffusion" and spec.mask_id is None:
        yield "it has no mask_id"
    for what, ids in (("mask_id", [spec.mask_id or 0]), ("pad_id", [spec.pad_id]), ("stop_ids", spec.stop_ids)):
        if outside := [one for one in ids if not 0 <= one < spec.vocab_size]:
            yield f"{what} {outside[0]} is outside of the vocabulary of {spec.vocab_size}"


def _logits(model: LanguageModel, tokens_BT: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        every_N = torch.arange(tokens_BT.numel()).to(model.device)
        return model.forward(ForwardRequest(tokens_BT.to(model.device), select_N=every_N))


def _shapes(model: LanguageModel) -> Iterator[str]:
    """A call returns logits of the positions that were asked for, the same ones again."""
    tokens_BT = torch.arange(2 * LENGTH).view(2, LENGTH) % model.spec.vocab_size
    logits_NV = _logits(model, tokens_BT)
    if tuple(logits_NV.shape) != (2 * LENGTH, model.spec.vocab_size):
        yield f"logits of {2 * LENGTH} positions have the shape {tuple(logits_NV.shape)}"
    elif bool(logits_NV.isnan().any()):
        yield "logits are not numbers (NaN)"
    elif not torch.equal(logits_NV, _logits(model, tokens_BT)):
        yield "the same call gives other logits"


def _rows_apart(model: LanguageModel) -> Iterator[str]:
    """A row does not see the others."""
    tokens_BT = torch.arange(2 * LENGTH).view(2, LENGTH) % model.spec.vocab_size
    alone_NV, together_NV = _logits(model, tokens_BT[:1]), _logits(model, tokens_BT)[:LENGTH]
    gap = float((alone_NV - together_NV).abs().max())
    if gap > 1e-9:
        yield f"logits of a row differ by {gap:.3g} beside another row"
