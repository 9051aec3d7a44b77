"""What every method costs at the ends of its knobs: forwards and query tokens in closed form, from the records."""

from dataclasses import fields
from typing import cast

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from harness.config.build import build_method
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.engine.autoregressive import loop as draft_verify
from harness.engine.autoregressive.layers import RoutesExperts
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.families import asks
from harness.engine.shared.model import ModelKind, Models
from harness.engine.shared.records import Counts, Ledger
from harness.models import random_assistant
from harness.models.closed_form import ClosedForm, ClosedFormModel
from tests.caches.decoding import LENGTH, decode_with, queries_per_call, random_model
from tests.engine.causal import MIXTURE, random_causal

P, G = 8, LENGTH
L = P + G
# Per method and knobs: a number of calls that compute the whole canvas, or what each call computes.
QUOTA = {"steps=8": 8, "steps=3": 3}
WORK: dict[str, dict[str, int | list[int]]] = {
    "llada": {"steps=8 block_length=4": 8, "cfg_scale=1 steps=4": 4 * [2 * L]},
    "dream": QUOTA,
    "eoser": QUOTA,
    "pc_sampler": QUOTA,
    "ccd_code": {"steps=8": 8, "steps=3": -(-G // (G // 3))},
    "ccd": {"b=1": G, "b=4": G // 4},
    "klass": {"steps=8 tau=1.1 block_length=8": 8, "tau=0 eps=1000 block_length=8": 2 * 2},
    "prophet": {"steps=8 gap_thresholds=[1e9,1e9,1e9]": 8, "gap_thresholds=[-1e9,-1e9,-1e9]": 1},
    "ass": {"": 4, "block_num=2": 4},
    "eoser_ass": {"": 4},
    "dus": {"block_length=8": 2 * 3, "a=4": 2},
    "threshold": {"threshold=1.1": G, "threshold=0 block_length=4": G // 4},
    "factor": {"factor=1e-9": G, "factor=1e9 block_length=4": G // 4},
    "frechet": {"delta=1": G, "delta=-17 block_length=4": G // 4},
    "eb": {"gamma=0": G, "gamma=1000 block_length=4": G // 4},
    "entropy_threshold": {"theta=0": G, "theta=10 block_length=4": G // 4},
    "dinfer_threshold": {"tau=1.1": G, "tau=0 block_length=4": G // 4},
    "credit": {"tau=1.1": G, "tau=0 block_length=4": G // 4},
    "local_leap": {"tau=1.1 tau_rel=1.1": G, "tau=0 tau_rel=0 block_length=4": G // 4},
    "hierarchy": {"tau=1.1 low=1.1": G, "tau=0 low=0 block_length=4": G // 4},
    "hierarchy_remask": {"tau=1.1 low=1.1 rm=0": G, "tau=0 low=0 rm=0 block_length=4": G // 4},
    "dawn": {"tau=1.1 low=1.1": G, "tau=0 low=0 block_length=4": G // 4},
    "adablock": {"tau=1.1 theta_d=1.1": G, "tau=0 theta_d=1.1 block_length=4": G // 4},
    "dsb": {"tau=1.1 block_length=4": G, "tau=0 block_length=4": G // 4},
    "multi_block": {"theta=0 block_length=4": G, "theta=10 block_length=4 add=1 full=1": G // 4},
    "saber": {"block_length=1": G, "n=4 block_length=4": G // 4},
    "oracle": {"block_length=1": G},
    "slowfast": {"block_length=1": G, "high=0 conf_len=0 block_length=4": G // 4},
    # The shadow of the block is computed as well.
    "wino": {"tau1=1.1 tau2=0 block_length=4": G * [L + 4], "tau1=0 tau2=0 cap_most=5 block_length=16": 4 * [L + 16]},
    # A complete block is looked at once more, unless no edit can pass.
    "t2t_edit": {"tau=1.1 tau_edit=1": G, "tau=0 tau_edit=0.9999 post=1 block_length=4": 2 * G // 4},
    # The search of the length takes a call for each length, the last one included.
    "daedal": {
        "eos_init=0 eos_grow=0 W=1 high=0 block_length=4": 1 + G // 4,
        "L0=8 Lmax=16 grow=4 eos_init=1.1 eos_grow=0 W=1 high=1.1": [P + 8, P + 12, *(1 + G) * [L]],
    },
    # Tokens without context: each block of b takes the opening call, and ceil((b - 1) / d) of d drafts, at most b.
    "freedave": {
        "draft_steps=1": G,
        "draft_steps=3": [L, *5 * [3 * L]],
        "draft_steps=4 block_length=8": 2 * [L, 4 * L, 4 * L],
    },
    # Without context the base stays best, and every call but the first has a branch while two positions are open.
    "lopa": {"k=1 threshold=1.1": G, "k=2 threshold=1.1": [L, *14 * [2 * L], L], "threshold=0 block_length=4": G // 4},
    # Blocks of 8: the prefill, a call for each step, and one to store the first block.
    "sdar": {"threshold=1.1": (1 + 8 + 1 + 8) * [8], "threshold=0": (1 + 1 + 1 + 1) * [8]},
    # Prefill and the calls that store give a token, the first of a block, which is a sub-block of its own.
    "fast_dllm_v2": {
        "threshold=1.1 sub_block_length=4": (1 + 15) * [8],
        "threshold=0 sub_block_length=4": (1 + 2 + 3) * [8],
    },
    "ar_greedy": {"": [P, *(G - 1) * [1]]},
    "unified_skip": {"": [P, *(G - 1) * [1]], "speedup=1": [P, *(G - 1) * [1]]},
    # At exit 4 all drafts stand; the last of each round passes the layers, too.
    "layer_skip": {
        "exit=4": [P, *3 * [1, 1, 1, 1, 4], *[1, 1, 1, 3]],
        "exit=4 num_speculations=14": [P, *15 * [1], 15],
        "num_speculations=0": [P, *(G - 1) * [1]],
    },
    "easyspec": {"N=1": [P, P + 1, 1, 1, 1, 5, *2 * [2, 1, 1, 1, 5]], "K=0": [P, *(G - 1) * [1]]},
    # Nothing is drafted once lengths are chosen from 0 alone; the first round drafts a token, which stands.
    "del": {"gamma_max=1 dynamic_length=false": [P, 1, 1, 2, *(G - 3) * [1]]},
    "swift": {"r=0 threshold=0 length=4": [P, *3 * [1, 1, 1, 1, 5]], "length=0": [P, *(G - 1) * [1]]},
    "ar_sample": {"": [P, *(G - 1) * [1]]},
    # A draft that is right: K tokens of its own and the target's call; behind that it lacks two tokens, not one.
    "speculative": {
        "": [P, P + 1, 1, 1, 1, 5, *2 * [2, 1, 1, 1, 5]],
        "K=14": [P, P + 1, *13 * [1], 15],
        "K=0": [P, *(G - 1) * [1]],
    },
    # Trials are rows of a call behind the one that finds the entropy, and give the first token of each.
    "cntp": {
        "N_max=1": [P, *(G - 1) * [1]],
        "variant=same_num max_trial_len=4": [P, *3 * [6], *3 * [1, *3 * [6]]],
    },
    # Where two tokens are left, one can be looked ahead, and none where it is one.
    "adadec": {
        "theta=99": [P, *(G - 1) * [1]],
        "theta=0 B=3 L=2 reuse_rollout=false": [P, 3, 3, *13 * [1, 3, 3], 1, 3, 1],
        # Nothing is sure: the winner's first token, and its next call is known already.
        "theta=0 B=3 L=2": [P, *14 * [3, 3], 3],
    },
    # Both routings read the prompt, and every token.
    "scmoe": {"": [P, P, *2 * (G - 1) * [1]]},
    "superposed": {"": [P, *(G - 1) * [1]], "k=1 n=2": [P, *(G - 1) * [1]]},
    "beam": {"num_beams=1": [P, *(G - 1) * [1]], "num_beams=3": [P, *(G - 1) * [3]]},
    "ffs": {
        "N=1": [P, *(G - 1) * [1]],
        "N=4": [P, *(G - 1) * [4]],
        "N=4 synchronous=false": [P, *(G - 1) * 4 * [1]],
    },
    # Nothing is forced where no tokenizer tells the texts' tokens.
    "budget_forcing": {"": [P, *(G - 1) * [1]]},
    "staged_prompting": {"": [P, *(G - 1) * [1]]},
    "self_consistency": {"N=1": [P, *(G - 1) * [1]], "N=4": [P, *(G - 1) * [4]]},
    # No two tokens of the prompt are alike, and what the model repeats is not a token of the prompt.
    "prompt_lookup": {"num_tokens=0": [P, *(G - 1) * [1]]},
    # Without a mask there is nothing to ask; with some, the test of the method replays it.
    "deer": {"K=0": [P, *(G - 1) * [1]]},
    # An assistant that nobody trained, of blocks of 4, is right about nothing: a block, and as many drafts as fit.
    "dflash": {"": [P, *(one for room in range(G - 2, 0, -1) for one in (4, 1 + min(3, room))), 1]},
    # What the model repeats is known behind its third token, four of them deep: five tokens a call, or two.
    "aded": {"": [P, 1, 1, 1, 5, 5, 2], "num_draft=1": [P, 1, 1, 1, *6 * [2]]},
    # The window grows by a row and loses a column per call; before it is full there is nothing to draft.
    "lookahead": {"N=18 W=1": [P, *((f + 1) * (17 - f) for f in range(G - 1))]},
}
ASSISTANT = random_assistant.load(
    name="assistant", width=16, heads=2, reads=(0, 3), block_size=4, mask_id=5, max_length=64, dtype=torch.float64
).model
CONTEXT_FREE = ClosedFormModel(ClosedForm(vocab_size=12, mask_id=11, eos_id=0, a1=4, f1=1.3, a2=0, f2=0, f3=0))


def test_no_method_is_left_out():
    """Guards against a method whose work nobody has worked out; samplers that models bring decide theirs themselves."""
    assert set(WORK) == {name for name in names("method") if read("method", name)["family"] != "own_sampler"}


def queries_of(method: str, cfg: DictConfig) -> tuple[list[int], Counts]:
    """Decode one prompt; return the query tokens of every call, and the counts."""
    made, prompt = build_method(cfg), list(range(2, 2 + P))
    if not isinstance(made, DiffusionMethod):
        ledger = Ledger()
        routes = any(isinstance(getattr(made, slot.name), RoutesExperts) for slot in fields(made))
        target = random_causal(layers=4, experts=MIXTURE if routes else None)
        # A draft that is the target itself is right about everything.
        draft = ASSISTANT if ModelKind.ASSISTANT in asks(made).get("draft", ()) else target
        model = Models(target, draft) if asks(made) else target
        draft_verify.decode(model, made, [prompt], gen_length=G, seeds=[0], ledger=ledger)
        return queries_per_call(ledger), ledger.counts([0])[0]
    model = random_model()
    if method in ("freedave", "lopa"):
        model = CONTEXT_FREE
    elif cfg.model.kind == "block_diffusion":
        model = random_model("block_diffusion", shift=int(method == "fast_dllm_v2"))
    decoded = decode_with(made, model, [prompt])
    return decoded.queries, decoded.counts[0]


@pytest.mark.parametrize("method", WORK)
def test_the_records_are_the_closed_form(method: str):
    """Guards the number of calls and what each computes, and the counts that are made of them."""
    kind = read("method", method)["models"][0]
    model = {"block_diffusion": "tiny_block", "causal": "tiny_ar"}.get(kind, "random_mdm")
    cfg = compose([f"model={model}", f"method={method}", f"gen_length={G}"])
    if "block_length" in cfg.method and model == "random_mdm":
        cfg.method.block_length = G
    for knobs, calls in WORK[method].items():
        settings = OmegaConf.from_dotlist([f"method.{knob}" for knob in knobs.split()])
        queries, counts = queries_of(method, cast(DictConfig, OmegaConf.merge(cfg, settings)))
        assert queries == (calls if isinstance(calls, list) else calls * [L]), knobs
        assert counts.query_tokens == sum(queries), knobs
        assert len(queries) - counts.nfe_prefill <= counts.nfe + counts.nfe_draft <= len(queries), knobs
