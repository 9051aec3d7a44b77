"""Names of runs do not move: what is stored stays found, however runs are composed and resolved."""

import json
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf, base

from harness.config import build, identity, sections, source_digest, values
from harness.config.build import Builder
from harness.config.composition import compose, resolved
from harness.config.job import Shared, resolve
from harness.config.loader import ROOT, Loader, loader
from harness.config.source_digest import Code
from harness.config.values import Values
from harness.runs.plan import plan
from harness.runs.sweep import expand

RECORDED = json.loads((Path(__file__).parent / "golden" / "names.json").read_text())
NO_CODE = Code(modules={}, versions={})


def test_names_are_those_that_were_recorded(monkeypatch: pytest.MonkeyPatch):
    """Guards stored results of 40 varied jobs, resolved one beside the other as a sweep does; code apart."""
    monkeypatch.setattr("harness.config.job.device_name", lambda device: "processor")
    shared = Shared()
    for one in RECORDED:
        job = resolve(compose(one["overrides"].split()), shared)
        names = (job.setting_id, identity.run_id(job.setting_id, job.producer, NO_CODE))
        assert names == (one["setting_id"], one["run_id"]), one["overrides"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=threshold", "task=list_sort", "model=tiny_block", "method.block_length=8"],
        ["experiment=quickstart", "method=llada", "method.steps=4", "model=tiny_mdm", "task=list_shuffle"],
        ["experiment=paper_dparallel", "model=dream_7b_instruct", "task=gsm8k", "method=threshold"],
        ["method=freedave", "method/cache=dual", "method/finish=prefix_eos", "device=cuda", "measure=timed"],
        ["protocol=d1", "task=sudoku", "model=llada_8b_instruct", "protocol.tasks.sudoku.shots=2"],
    ],
)
def test_sections_composed_apart_are_those_of_the_whole(overrides: list[str]):
    """Guards what jobs share: it is what composing everything together gives."""
    for _ in range(2):
        apart = compose(overrides)
        whole = loader().load_configuration(ROOT, list(apart.overrides), RunMode.RUN, from_shell=False)
        assert resolved(apart) == resolved(whole) and apart.protocol == whole.protocol


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, *names: str) -> dict[str, list[Any]]:
    """Return the arguments of every call of functions of a module or a class, which go on working."""
    calls: dict[str, list[Any]] = {name: [] for name in names}
    for name in names:
        real = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *given, real=real, to=calls[name], **named: (to.append(given), real(*given, **named))[1]
        )
    return calls


def test_jobs_of_a_sweep_share_what_is_equal(monkeypatch: pytest.MonkeyPatch):
    """Guards the time before a sweep's first run: options are composed, parts built, files and code read once each."""
    sections._whole.cache_clear()
    sections._apart.cache_clear()
    composed = counted(monkeypatch, Loader, "whole", "merged", "load_configuration")
    built = counted(monkeypatch, build, "build_method", "build_task", "checkpoint_digest")
    read = counted(monkeypatch, source_digest, "_read")["_read"]
    followed = counted(monkeypatch, values, "plain")["plain"]
    choices = ["method=llada,threshold,eb", "task=list_copy,list_sort", "model=tiny_mdm,tiny_block", "seed=0,1"]
    planned = plan(expand(["results_dir=nowhere", *choices, "method.block_length=8"]))
    assert len({one.job.run_id for one in planned.jobs}) == 24 and not planned.refused
    assert [len(calls) for calls in composed.values()] == [1, 3 + 2 + 2, 0]
    assert [len(calls) for calls in built.values()] == [3, 2, 2]
    names = [name for name, _ in read]
    assert len(names) == len(set(names)) > 50
    assert sum(name == "method" for _, name in followed) == 3 and sum(name == "model" for _, name in followed) == 2


def test_planning_a_job_asks_little_of_what_holds_configs(monkeypatch: pytest.MonkeyPatch):
    """Guards the time that a stored job takes: a reference is parsed once, no message is composed that nobody reads."""
    sweep = expand(["results_dir=nowhere", "method=threshold", "seed=range(0,8)"])
    asked = counted(monkeypatch, base, "parse", "format_and_raise")
    written = counted(monkeypatch, build, "as_written")["as_written"]
    assert not plan(sweep).refused
    # Besides that of the length, there are those of the one method and the one task.
    assert len(asked["parse"]) < 2 * len(sweep.jobs) + 8 and len(asked["format_and_raise"]) < len(sweep.jobs)
    assert len(written) <= 1


@pytest.mark.parametrize(
    "written", ["${seed}", "${..seed}", "${.other}", "${oc.select:seed}", "${inner.deep}", "a ${seed}"]
)
def test_values_that_are_shared_follow_what_they_refer_to(written: str):
    """Guards a section against the values that what it refers to had in another job."""
    shared = Values()
    for seed in (1, 2, 1):
        cfg = OmegaConf.create(
            {
                "seed": seed,
                "inner": {"deep": seed},
                "method": {"knob": written, "other": 3, "part": {"up": "${...seed}"}},
            }
        )
        assert shared.section(cfg, "method") == OmegaConf.to_container(cfg.method, resolve=True)


def test_a_method_is_nobody_elses():
    """Guards the runs of a sweep against what a policy keeps from another run."""
    cfg, builder = compose(["method=threshold"]), Builder()
    first, second = builder.method(cfg), builder.method(cfg)
    assert first == second and first.selector is not second.selector  # type: ignore[union-attr]
    assert builder.task(cfg) is builder.task(cfg)
