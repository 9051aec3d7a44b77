"""Protocols: what they set, what they refuse, and the very prompts that they ask with."""

import json
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from harness.config import compatibility, protocols
from harness.config.build import build_task
from harness.config.catalogue import describe, names, read
from harness.config.composition import completed, compose, resolved
from harness.config.identity import run_id
from harness.errors import ConfigError

GOLDEN = Path(__file__).parent / "golden" / "prompts.json"
TASKS = ("gsm8k", "math500", "countdown", "sudoku", "humaneval", "mbpp")
PAIRS = [
    (protocol, task) for protocol in names("protocol") for task in TASKS if task in read("protocol", protocol)["tasks"]
]
TEMPLATES = [(task, template) for task in TASKS for template in ("own-1", "own-2")]


@cache
def composed(task: str) -> DictConfig:
    """Return the config of a task under our own protocol."""
    return compose([f"task={task}"])


def prompts(task: str, protocol: str = "own", **changes: object) -> list[object]:
    """Return the prompts of the two samples with the smallest digests."""
    cfg = composed(task).copy()
    cfg.protocol = OmegaConf.create(read("protocol", protocol))
    cfg.task.merge_with({"samples": 2, **changes})
    return [sample.prompt for sample in build_task(cfg).instances()]


def asked() -> dict[str, list[object]]:
    """Return the prompts of every protocol and task, and of both wordings of our own."""
    found = {f"{protocol}/{task}": prompts(task, protocol) for protocol, task in PAIRS}
    return found | {f"own/{task}/{template}": prompts(task, template=template) for task, template in TEMPLATES}


def test_prompts_are_the_recorded_ones(request: pytest.FixtureRequest) -> None:
    """Guards every word, example and turn: a changed prompt is another protocol.

    `pytest --update-golden` rewrites the record.
    """
    found = asked()
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("task", TASKS)
def test_own_wordings_differ(task: str) -> None:
    """Guards the spread over templates: two names for one wording would have none."""
    assert prompts(task, template="own-1") != prompts(task, template="own-2")


@pytest.mark.parametrize("protocol", names("protocol"))
def test_a_protocol_says_everything_about_its_tasks(protocol: str) -> None:
    """Guards against a value that a task would take from its defaults, unseen."""
    wanted = {"template", "turns", "shots", "stop", "reading", "gen_length"}
    for task, preset in read("protocol", protocol)["tasks"].items():
        assert wanted <= set(preset), f"{protocol}/{task}"
        assert not preset["shots"] or "shots_from" in preset


@pytest.mark.parametrize(("protocol", "task"), [pair for pair in PAIRS if pair[0] != "own"])
def test_words_of_our_own_do_not_pass_for_published(protocol: str, task: str) -> None:
    """Guards a published name: where only the form of its prompt is known, the preset and every run say so."""
    cfg = composed(task).copy()
    cfg.protocol = OmegaConf.create(read("protocol", protocol))
    warnings = build_task(cfg).grading().warnings
    ours = [f"protocol={protocol}: the wording of task.template={cfg.task.template} is a reconstruction"]
    assert list(warnings) == (ours if cfg.protocol.tasks[task].wording == "reconstruction" else [])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("protocol", names("protocol"))
def test_what_was_not_published_is_refused(protocol: str, task: str) -> None:
    """Guards against a number under the name of a paper that has no such number."""
    cfg = composed(task).copy()
    cfg.protocol = OmegaConf.create(read("protocol", protocol))
    if (protocol, task) in PAIRS:
        protocols.check(cfg)
        return
    with pytest.raises(ConfigError, match=rf"^protocol={protocol}: was not published for task={task} \(.*own$"):
        compatibility.check(cfg)


def test_list_tasks_have_no_published_protocol() -> None:
    """Guards against a published name beside a task that its paper never ran."""
    protocols.check(compose(["task=list_copy"]))
    with pytest.raises(ConfigError, match=r"protocol=d1: was not published for task=list_copy .*use protocol=own$"):
        compatibility.check(compose(["task=list_copy", "protocol=d1"]))


def test_a_protocol_sets_lengths_and_blocks() -> None:
    """Guards the presets: a protocol that changes prompts only would not be the published one."""
    cfg = compose(["task=gsm8k", "protocol=fast_dllm", "method=threshold"])
    assert (cfg.gen_length, cfg.method.gen_length, cfg.method.block_length) == (256, 256, 32)
    cfg = compose(["task=gsm8k", "protocol=llada_oc", "method=llada"])
    assert (cfg.gen_length, cfg.method.block_length, cfg.method.confidence_eos_eot_inf) == (512, 512, True)


def test_what_a_user_sets_wins() -> None:
    """Guards overrides: the published variants with 512 tokens, or another method's blocks, stay reachable."""
    cfg = compose(["task=gsm8k", "protocol=fast_dllm", "gen_length=512", "method.block_length=64", "task.shots=0"])
    assert (cfg.gen_length, cfg.method.block_length, cfg.task.shots) == (512, 64, 0)


def test_a_method_without_the_knob_runs_under_the_protocol() -> None:
    """Guards autoregressive methods: they have no blocks, and the prompts are the same."""
    cfg = compose(["task=gsm8k", "protocol=llada_oc", "method=ar_greedy", "model=tiny_ar"])
    assert (cfg.gen_length, cfg.task.template) == (512, "opencompass")


def test_a_launched_job_gets_what_the_protocol_sets() -> None:
    """Guards sweeps on other launchers, which compose their configs from overrides alone."""
    overrides = ["task=gsm8k", "protocol=fast_dllm"]
    assert completed(overrides) == [*overrides, "method.block_length=32"]
    assert completed(["task=list_copy"]) == ["task=list_copy"]


def test_settings_of_a_model_come_on_top() -> None:
    """Guards the variants of a protocol: what was published for one model replaces the general setting."""
    cfg = compose(["task=countdown"])
    cfg.model.name = "llada_8b_base"
    added = protocols.settings(cfg, [])
    assert 'task.template="equations"' in added and 'task.stop=["\n"]' in added and "gen_length=32" in added
    changed = compose(["task=countdown", *added])
    assert (list(changed.task.stop), changed.task.turns, changed.gen_length) == (["\n"], "text", 32)
    cfg = compose(["task=gsm8k", "protocol=llada_oc"])
    cfg.model.name = "llada_1_5"
    assert set(protocols.settings(cfg, [])) == {
        "gen_length=256",
        "method.block_length=16",
        "method.confidence_eos_eot_inf=true",
    }


def test_a_protocol_is_part_of_the_name_of_a_run() -> None:
    """Guards resuming: two protocols with equal prompts must not share a result; list tasks keep their names."""

    def name(*overrides: str) -> str:
        return run_id(resolved(compose(overrides)), checkpoint_sha256=None, task_version="1")

    assert name("task=gsm8k") != name("task=gsm8k", "protocol=d1")
    plain = resolved(compose(["task=list_copy"]))
    assert run_id(plain, checkpoint_sha256=None, task_version="1") == run_id(
        plain | {"protocol": "other"}, checkpoint_sha256=None, task_version="1"
    )


def test_a_model_of_symbols_is_refused() -> None:
    """Guards the message: a task in words on a model that knows 128 symbols."""
    with pytest.raises(ConfigError, match=r"^task=gsm8k: is written in words, and model=tiny_mdm reads symbols only"):
        compatibility.check(compose(["task=gsm8k"]))


def test_protocols_are_listed() -> None:
    """Guards `decbench list protocols`: every entry says which tasks it has."""
    entries = {str(entry["name"]): entry["tasks"] for entry in describe("protocol")}
    assert set(entries) == {"own", "llada_lmeval", "llada_oc", "dream_instruct", "fast_dllm", "dparallel", "d1"}
    ours = [entry["name"] for entry in describe("protocol") if entry["reconstructed"]]
    assert ours == ["d1", "dparallel", "llada_oc"]
    assert entries["d1"] == ["gsm8k", "math500", "countdown", "sudoku"]
