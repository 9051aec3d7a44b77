"""The promises of every method, its own and beside every cache: by the rules that `decbench check` holds others to."""

from functools import cache

import pytest

from harness.commands.check.methods import MODELS, beside_for, model_for
from harness.commands.check.rules import RULES
from harness.commands.check.subject import LENGTH, PROMPTS, Subject
from harness.config import options
from harness.config.build import build_method
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.engine.diffusion.fit import refuse_kind
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.model import ModelKind
from harness.engine.shared.policy import REGISTRY

options.register()
CACHES = sorted(name for group, name in REGISTRY if group == "method/cache" and name != "none")
BLOCKWISE = [f"{method} method.block_length=8" for method in ("threshold", "llada")]
# It computes what is decided next, which of these two only a random order tells.
GREEDY = "llada method.block_length=8 method.remasking=random method/cache=dkv_greedy"
CACHED = [f"{method} method/cache={cache}" for method in BLOCKWISE for cache in CACHES if cache != "dkv_greedy"]
# A sampler that comes with its model has no other model to run on here; its own tests load a miniature.
IN_TREE = [name for name in names("method") if read("method", name)["family"] != "own_sampler"]
METHODS = [*IN_TREE, *CACHED, GREEDY]
# Half of what `decbench check` decodes: alone, in a batch of three and what is left of it, and beginning in turn.
ROWS = PROMPTS[::2]
BROKEN = {("oracle", "counting"): "the model was called"}
"""What is not kept and is said to be: a bound is given its answer for nothing."""


@cache
def subject(words: str) -> Subject:
    """Return a method as its config has it, on the first kind of model that it runs on, so that it decodes once."""
    for kind in read("method", words.split()[0])["models"]:
        made = build_method(compose([f"model={MODELS[kind]}", *f"method={words}".split(), f"gen_length={LENGTH}"]))
        try:
            if isinstance(made, DiffusionMethod):
                refuse_kind(made, ModelKind(kind))
        except ValueError:
            continue
        return Subject(words=words, method=made, model=model_for(made, kind), beside=beside_for(made), prompts=ROWS)
    raise AssertionError(f"no model for {words}")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_keeps_the_rules(method: str, rule: str):
    """Guards against state that outlives a generation, rows that see each other, masks in answers, idle or uncounted
    calls, and touched prompts."""
    found = list(RULES[rule](subject(method)))
    known = BROKEN.get((method, rule))
    assert found == [] if known is None else found and all(known in one for one in found)
