"""A method's file speaks for the policies that it chooses; whatever is put in their place stands on its own."""

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from harness.config import options
from harness.config.build import build_method
from harness.config.catalogue import knobs, names, read
from harness.config.compatibility import check
from harness.config.composition import compose
from harness.config.knobs import as_written, knobs_read
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.policy import REGISTRY
from harness.errors import ConfigError
from methods.diffusion.llada import Top

options.register()
DIFFUSION = [name for name in names("method") if read("method", name)["family"] == "diffusion"]
FINISHES = {name: cls for (group, name), cls in sorted(REGISTRY.items()) if group == "method/finish"}


def built(*overrides: str) -> DiffusionMethod:
    """Build a diffusion method."""
    method = build_method(compose(overrides))
    assert isinstance(method, DiffusionMethod)
    return method


@pytest.mark.parametrize("name", DIFFUSION)
def test_a_method_takes_every_end_of_text_policy(name: str):
    """Guards methods that have one of these rules among their knobs; only policies refuse each other.

    Where a method's file says nothing about the slot, one rule stands for all of them.
    """
    method = built(f"method={name}")
    for finish in FINISHES if "finish" in read("method", name) else ["prefix_eos"]:
        cfg = compose([f"method={name}", f"method/finish={finish}"])
        if type(method.finish) is FINISHES[finish]:
            assert build_method(cfg) == method
            continue
        try:
            fitting = replace(method, finish=FINISHES[finish]())
        except ValueError as error:
            with pytest.raises(ConfigError, match=str(error)):
                build_method(cfg)
        else:
            assert build_method(cfg) == fitting


@pytest.mark.parametrize("name", [name for name in names("method") if read("method", name)["family"] != "own_sampler"])
def test_what_is_put_in_place_has_its_own_defaults(name: str):
    """Guards every slot: values of a method's file that reach a policy which the file does not choose."""
    option = read("method", name)
    own = {slot: chosen for part in option["defaults"] if part != "_self_" for slot, chosen in part.items()}
    others = {
        group.removeprefix("method/"): other
        for group, other in sorted(REGISTRY)
        if own.get(group.removeprefix("method/"), other) != other
    }
    cfg = compose([f"method={name}", *(f"method/{slot}={other}" for slot, other in others.items())])
    for slot, other in others.items():
        assert cfg.method[slot] == OmegaConf.structured(options.schema(REGISTRY[f"method/{slot}", other]))
    raw = as_written(cfg.method)
    # A slot with one option keeps it, and what is wired to it.
    kept = knobs_read({key: value for key, value in raw.items() if key not in others})
    assert knobs(option).keys() & knobs_read(raw) == knobs(option).keys() & kept


@pytest.mark.parametrize("name", names("method"))
def test_every_published_knob_is_read(name: str):
    """Guards against a knob that turns nothing."""
    assert knobs(read("method", name)).keys() <= knobs_read(as_written(compose([f"method={name}"]).method))


def test_the_selector_of_a_threshold_can_be_another():
    """Guards the first thing that is tried: `threshold` keeps its window and scorer, and takes the best position."""
    assert built("method=threshold", "method/selector=top").selector == Top()


UNREAD = {
    "method=local_leap method/finish=prefix_eos method.early_stop=false": "method.early_stop=False: nothing reads it "
    "with method/finish=prefix_eos; leave it out, or keep method/finish=block_eos",
    "method=threshold method/scorer=drawn method.temperature=0.5": "method.temperature=0.5: nothing reads it with "
    "method/scorer=drawn; set method.scorer.temperature, or keep method/scorer=confidence",
    "method.block_length=8 method.window.length=8 method.schedule.block_length=8": "method.block_length=8: nothing "
    "reads it beside method.window.length; leave one of them out",
    "method=threshold method.gen_length=8": "method.gen_length=8: nothing reads it; set the run's gen_length",
    "method=threshold +method.notch=1": "method.notch=1: nothing reads it; leave it out",
}


@pytest.mark.parametrize("overrides", UNREAD)
def test_a_knob_that_nothing_reads_is_refused(overrides: str):
    """Guards against a setting that is stored and shown, but has no effect."""
    with pytest.raises(ConfigError) as refused:
        check(compose(overrides.split()))
    assert str(refused.value) == UNREAD[overrides]


def test_a_default_that_nothing_reads_is_no_matter():
    """Guards swapped policies against rules for knobs that they do not read, here the default of 32 positions."""
    check(compose(["method=threshold", "method/window=sliding", "method.window.length=5", "gen_length=40"]))
