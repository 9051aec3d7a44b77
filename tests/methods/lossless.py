"""What every lossless autoregressive method is held to: greedy decoding's tokens, but where numbers do not decide."""

from collections.abc import Sequence
from functools import cache

import torch

from harness.config import options
from harness.config.build import build_method, load_model
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.parts import running_parts
from harness.engine.families import asks
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import ForwardRequest, LanguageModel, ModelKind, Models
from harness.results.gate.differences import smallest_decided

options.register()
DRAFTS = {
    ModelKind.CAUSAL: "tiny_ar_draft",
    ModelKind.MASKED_DIFFUSION: "tiny_mdm",
    ModelKind.ASSISTANT: "random_dflash",
}
KNOBS = {
    "layer_skip": ("method.exit=3",),
    "swift": ("method.r=0.5", "method.bayes_interval=0", "method.context_window=4", "method.threshold=0.3"),
    "easyspec": ("model@draft=tiny_ar", "method.N=2"),  # the usual draft has no inner layers to group
    "deer": ("method.K=8",),
}
"""Knobs that suit four layers and answers of sixteen tokens better than the published ones."""

DRAFTED, EARLY = ("model=tiny_ar", "model@draft=tiny_ar_draft"), "model=tiny_ar_exits"
VARIANTS = {
    "speculative of itself": ("model=tiny_ar", "model@draft=tiny_ar", "method=speculative"),
    "speculative, as long as it is sure": (*DRAFTED, "method=speculative", "method/draft_length=confidence"),
    "prompt_lookup, last": ("model=tiny_ar", "method=prompt_lookup", "method.prefer=last", "method.max_ngram=1"),
    "lookahead, small": ("model=tiny_ar", "method=lookahead", "method.N=3", "method.W=2", "method.G=1"),
    "aded, small": ("model=tiny_ar", "method=aded", "method.num_draft=6", "method.iterations=20"),
    "layer_skip at the end": (EARLY, "method=layer_skip", "method.exit=4", "method.num_speculations=5"),
    "del, as long as chosen": (EARLY, "method=del", "method.dynamic_length=false"),
    "swift, a comb": (EARLY, "method=swift", *KNOBS["swift"], "method.tree=[3,5,8,10]"),
    "swift, all it may": (EARLY, "method=swift", "method.r=0.9", "method.threshold=0.0", "method.max_opt_iter=0"),
}
"""More points of some methods."""


def words_of(method: str) -> tuple[str, ...]:
    """Return the overrides that run a method on an embedded model: one that can be read early, where it reads so."""
    made = build_method(compose(["model=tiny_ar", f"method={method}"]))
    assert isinstance(made, AutoregressiveMethod)
    kinds = sorted(asks(made).get("draft", ()), key=lambda one: one.value)
    drafts = tuple(f"model@draft={DRAFTS[kind]}" for kind in kinds[:1])
    drafts = () if any(knob.startswith("model@draft=") for knob in KNOBS.get(method, ())) else drafts
    own = any(not policy.of_draft for _, policy in running_parts(made))
    return (f"model={'tiny_ar_exits' if own else 'tiny_ar'}", f"method={method}", *KNOBS.get(method, ()), *drafts)


def _claims(method: str) -> bool:
    told = read("method", method)
    return told["family"] == "autoregressive" and bool(told["lossless"])


CLAIMED = {name: words_of(name) for name in names("method") if _claims(name)}
"""Every method of ours that says that it loses nothing; new ones come by themselves."""

METHODS = CLAIMED | VARIANTS


@cache
def loaded(words: tuple[str, ...], dtype: str = "float32") -> tuple[LanguageModel, AutoregressiveMethod]:
    """Return model and method of overrides."""
    cfg = compose([*words, f"device.dtype={dtype}"])
    method = build_method(cfg)
    assert isinstance(method, AutoregressiveMethod)
    return load_model(cfg).model, method


@torch.no_grad()
def parted(
    model: LanguageModel, prompts: Sequence[Sequence[int]], plain: Sequence[Generation], made: Sequence[Generation]
) -> list[int]:
    """Return the rows whose answers are not those of plain decoding, though numbers decide between the two.

    Where answers part, a fresh forward says how far apart the two tokens are: less than numbers of the dtype decide is
    a tie.
    """
    target = model.target if isinstance(model, Models) else model
    wrong = []
    for row, (prompt, one, other) in enumerate(zip(prompts, plain, made, strict=True)):
        if one.tokens == other.tokens:
            continue
        at = next((k for k, pair in enumerate(zip(one.tokens, other.tokens, strict=False)) if len({*pair}) > 1), None)
        if at is None:
            wrong.append(row)
            continue
        logits_V = target.forward(ForwardRequest(torch.tensor([[*prompt, *one.tokens[:at]]])))[0, -1]
        gaps = [float(logits_V.max() - logits_V[tokens[at]]) for tokens in (one.tokens, other.tokens)]
        if max(gaps) >= smallest_decided("float32"):
            wrong.append(row)
    return wrong
