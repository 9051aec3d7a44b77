"""Decodings of a small transformer that grow in one size, and the operations that their calls have to do."""

from collections.abc import Callable, Sequence

import torch

from harness.commands.cost import calls_of
from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.families import Method
from harness.engine.shared.model import ModelKind, ModelSpec
from harness.models.cost.shape import shape_of
from harness.models.cost.work import work_of
from harness.models.embedded import EmbeddedModel
from harness.models.training import initialise
from harness.models.transformer import Attention, TransformerConfig
from harness.runs.decode_batch import Decoded, decode_batch
from harness.runs.measure import Measure, Measurement

_WIDTH, _HEADS = 64, 2
_PROMPT = 16


def model_of(*, vocabulary: int, length: int) -> EmbeddedModel:
    """Return a bidirectional transformer with random weights."""
    config = TransformerConfig(
        vocab_size=vocabulary,
        width=_WIDTH,
        layers=2,
        heads=_HEADS,
        kv_heads=_HEADS,
        head_width=_WIDTH // _HEADS,
        feed_forward_width=3 * _WIDTH,
        max_length=length,
        attention=Attention.FULL,
    )
    spec = ModelSpec(
        name="random",
        kind=ModelKind.MASKED_DIFFUSION,
        vocab_size=vocabulary,
        max_length=length,
        layers=config.layers,
        stop_ids=(),
        pad_id=0,
        mask_id=vocabulary - 1,
    )
    return EmbeddedModel(initialise(config, 0).requires_grad_(False).eval(), spec)


def decoding(*words: str, rows: int = 1, response: int = 32, vocabulary: int = 512) -> Callable[[], Decoded]:
    """Return a decoding of random prompts with `words` as the method's settings; everything is built already."""
    return _decoding(words, rows, model_of(vocabulary=vocabulary, length=_PROMPT + response), Measurement.COUNTS)


def operations(*words: str, rows: int = 1, response: int = 32, vocabulary: int = 512) -> float:
    """Return the operations of a decoding's calls."""
    model = model_of(vocabulary=vocabulary, length=_PROMPT + response)
    decoded, shape = _decoding(words, rows, model, Measurement.TRACED)(), shape_of(model.transformer.config)
    return sum(work_of(shape, call).flops for call in calls_of(decoded.calls))


def _decoding(words: Sequence[str], rows: int, model: EmbeddedModel, measure: Measurement) -> Callable[[], Decoded]:
    response, vocabulary = model.spec.max_length - _PROMPT, model.spec.vocab_size
    method: Method = build_method(compose(["method=llada", f"gen_length={response}", *words]))
    prompts = torch.randint(1, vocabulary - 1, (rows, _PROMPT), generator=torch.Generator().manual_seed(0)).tolist()

    def decode() -> Decoded:
        return decode_batch(
            model, method, prompts, seeds=range(rows), gen_length=response, measure=Measure(name=measure)
        )

    return decode
