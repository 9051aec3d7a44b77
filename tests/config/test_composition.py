"""What can be asked for is typed, and what cannot run is refused in one line before a model loads."""

from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hydra.types import RunMode
from omegaconf import OmegaConf

from harness.config import options
from harness.config.build import build_method
from harness.config.catalogue import names, read
from harness.config.compatibility import check, reason_against
from harness.config.composition import compose
from harness.config.loader import ROOT as BENCH
from harness.config.loader import loader
from harness.config.option_files import ASSUMED
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.families import asks
from harness.engine.shared.model import ModelKind
from harness.errors import ConfigError
from methods.caches.block_causal import BlockCausalCache
from methods.caches.dllm_cache import FeatureCache

ROOT = Path(__file__).resolve().parents[2]
WORDED = ("budget_forcing", "staged_prompting")
"""Methods whose words no embedded model reads."""
MODEL_OF = {"masked_diffusion": "tiny_mdm", "block_diffusion": "tiny_block", "causal": "tiny_ar"}


@pytest.mark.parametrize("group", ["model", "method", "task", "measure", "tracker", "device"])
def test_every_option_composes(group: str):
    """Guards against an option whose YAML no longer fits the classes behind it."""
    for name in names(group):
        cfg = compose([f"{group}={name}"])
        OmegaConf.to_container(cfg, resolve=True)
        assert cfg[group].name.startswith(name)


@pytest.mark.parametrize("method", names("method"))
def test_every_method_is_built_with_its_defaults(method: str):
    """Guards the wiring of knobs into policies."""
    kind, ours = read("method", method)["models"][0], read("method", method)["family"] != "own_sampler"
    on = "tiny_moe" if method == "scmoe" else MODEL_OF.get(kind)
    asked = [*([] if on is None else [f"model={on}"]), f"method={method}"]
    made = build_method(compose(asked))
    assert made
    if kind in MODEL_OF and ours:
        fitting = {"causal": "tiny_ar_draft", "masked_diffusion": "tiny_mdm", "assistant": "random_dflash"}
        beside = (f"model@{role}={fitting[one.value]}" for role, kinds in asks(made).items() for one in kinds)
        refused = pytest.raises(ConfigError, match=r"or a model with a text tokenizer$")
        with refused if method in WORDED else nullcontext():
            check(compose([*asked, *beside]))


def test_a_knob_reaches_its_policy():
    """Guards the interpolation: a published knob is flat, the policy tree is nobody's business."""
    method = build_method(compose(["method=threshold", "method.threshold=0.7", "method.block_length=8"]))
    assert method.selector.threshold == 0.7
    assert method.window.length == 8


def test_a_composition_leaves_the_next_one_alone():
    """Guards what is kept between compositions against values that were set in one, or by who got it."""
    first = compose(["method=threshold"])
    changed = compose(["method=threshold", "method.threshold=0.7", "hydra.job.name=mine", "task.samples=4"])
    changed.seed = 3
    assert (changed.method.selector.threshold, changed.task.samples) == (0.7, 4)
    assert compose(["method=threshold"]) == first
    first.protocol.name = first.model.name = "mine"
    first.method.selector.threshold = first.task.samples = 7
    again = compose(["method=threshold"])
    assert "mine" not in (again.protocol.name, again.model.name)
    assert 7 not in (again.method.selector.threshold, again.task.samples)
    whole = loader().load_configuration(BENCH, ["method=llada"], RunMode.RUN, from_shell=False)
    assert whole.method == compose(["method=llada"]).method


REFUSALS = {
    "method=tresh": "method=tresh: no such method; did you mean threshold?",
    "model=tiny_mdn": "model=tiny_mdn: no such model; did you mean tiny_mdm?",
    "task=list_cpy": "did you mean list_copy?",
    "method.stepz=3": "method.stepz: no such key; did you mean method.steps?",
    "method.steps=many": "method.steps=many: must be a whole number",
    "method=threshold method.steps=3": "method.steps: method=threshold has no such key; known to ass,",
    "method.scorer.temprature=1": "did you mean method.scorer.temperature?",
    "gen_length=many": "gen_length=many: must be a whole number",
    "device.threads=two": "device.threads=two: must be a whole number from 1 to 1024",
    "device.dtype=float8": "device.dtype=float8: must be one of float32,",
    "device.device=gpu": "device.device=gpu: must be auto, cpu or cuda",
    "method.steps=0": "method.steps=0: ",
    "method.temperature=-1": "method.temperature=-1.0: must be at least 0",
    "method.remasking=best": "expected one of [low_confidence, random,",
    "method.block_length=5": "method.block_length=5: must divide gen_length=16",
    "method.steps=5 method.block_length=4": "method.steps=5: must be a multiple of the 4 blocks",
    "method=threshold method/window=sliding": "method.window.length: needs a value",
    "model=tiny_ar": "method=llada: does not run on model=tiny_ar, which is causal; it runs on ",
    "method=ar_greedy": "method=ar_greedy: does not run on model=tiny_mdm, which is masked_diffusion",
    "model=tiny_block method=threshold": "generates blocks of 8; use method.block_length=8",
    "model=tiny_block method=dream": "method=dream: does not run on model=tiny_block",
    "method=threshold method/cache=block_causal": "the cache block_causal needs a block_diffusion model",
    "method=freedave method/cache=dllm_cache": "the cache dllm_cache gives no exact predictions of drafts",
    "method/cache=prefix method.cfg_scale=0.5": "method=llada: the cache prefix keeps the rows of the canvas alone",
    "model=tiny_block method=sdar method.block_length=16": "generates blocks of 8; use method.block_length=8",
    "task.samples=0": "task.samples=0: must be at least 1",
    "task.lengths=[2]": "task.lengths=[2]: ",
    "task=waiting_line": "reads symbols only; use task.renderer=tiny",
    "gen_length=200": "gen_length=200: model=tiny_mdm has 128 positions",
    "batch_size=0": "batch_size=0: must be at least 1",
    "model=tiny_ar method=speculative": "model@draft=null: method=speculative asks a model for its drafts; name one of",
    "model=tiny_ar method=ar_greedy model@draft=tiny_ar_draft": "model@draft=tiny_ar_draft: method=ar_greedy asks no ",
    "model@draft=tiny_ar_draft": "model@draft=tiny_ar_draft: method=llada asks no model for drafts; leave it out",
    "model=tiny_ar method=speculative model@draft=tiny_mdm": "model@draft=tiny_mdm: is masked_diffusion, and method=",
    "model=tiny_ar method=speculative model@draft=smollm2_135m": "reads text, model=tiny_ar reads symbols; name one of",
    "model=tiny_ar method=speculative model@draft=tiny_ar_drft": "model@draft=tiny_ar_drft: no such model; did you",
    "model=tiny_ar method=speculative model@draft=tiny_ar draft.max_length=9": "gen_length=16: model@draft=tiny_ar has",
    "model=tiny_ar method=speculative model@draft=tiny_ar draft.pth=a": "draft.pth: no such key; did you mean draft.p",
    "draft.path=a": "draft.path: no such key",
}


@pytest.mark.parametrize("overrides", REFUSALS)
def test_what_cannot_run_is_refused_by_name(overrides: str):
    """Guards the message: key, value, and what would do, on one line."""
    with pytest.raises(ConfigError) as refused:
        check(compose(overrides.split()))
    assert REFUSALS[overrides] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_whether_a_cache_fits_can_be_asked_without_a_model():
    """Guards the reasons of a table of methods, caches and kinds of models."""
    threshold, freedave = (build_method(compose([f"method={name}"])) for name in ("threshold", "freedave"))
    assert isinstance(threshold, DiffusionMethod) and isinstance(freedave, DiffusionMethod)
    assert reason_against(threshold, ModelKind.BLOCK_DIFFUSION, cache=BlockCausalCache()) is None
    assert "needs a block_diffusion model" in str(
        reason_against(threshold, ModelKind.MASKED_DIFFUSION, cache=BlockCausalCache())
    )
    assert "no exact predictions of drafts" in str(
        reason_against(freedave, ModelKind.MASKED_DIFFUSION, cache=FeatureCache())
    )


def test_a_method_file_says_only_what_differs():
    """Guards defaults, which stand in the classes: a second place is one that can differ."""
    twice = {}
    for file in sorted((ROOT / "conf" / "method").glob("*.yaml")):
        said = yaml.safe_load(file.read_text())
        chosen = [item for part in said["defaults"] if isinstance(part, dict) for item in part.items()]
        known = options.parts_of({"defaults": [], "family": said["family"]})
        assumed = ASSUMED["method"] | {"name": file.stem}
        twice[file.stem] = [slot for slot, part in chosen if known.get(slot) == part]
        twice[file.stem] += [key for key, value in assumed.items() if key in said and said[key] == value]
    assert len(twice) > 30 and {name: keys for name, keys in twice.items() if keys} == {}


def test_options_outlive_the_way_to_a_worker_and_back():
    """Guards what is composed behind a sweep of other processes: results bring the schemas of their configs along."""
    cloudpickle = pytest.importorskip("cloudpickle")
    for cls in options.REGISTRY.values():
        schema = options.schema(cls)
        before = OmegaConf.structured(schema)
        assert cloudpickle.loads(cloudpickle.dumps(schema)) is schema
        assert OmegaConf.structured(schema) == before


def test_policies_take_their_knobs_by_name():
    """Guards code that makes a policy by hand against fields that are put in another order."""
    knobs = [(cls.__name__, item.name, item.kw_only) for cls in options.REGISTRY.values() for item in fields(cls)]
    assert len(knobs) > 50 and [knob for knob in knobs if not knob[2]] == []
