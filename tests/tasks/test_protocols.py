"""Protocols: what they set, what they refuse, and the very prompts that they ask with."""

import json
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from harness.config import compatibility, protocols
from harness.config.build import build_task
from harness.config.catalogue import describe as entries_of
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.config.identity import describe
from harness.config.overrides import parse
from harness.errors import ConfigError
from tasks.asking import fill
from tasks.questions import QuestionTask
from tasks.task import Prompt

GOLDEN = Path(__file__).parent / "golden" / "prompts.json"
TASKS = ("gsm8k", "math500", "countdown", "sudoku", "humaneval", "mbpp")
PAIRS = [
    (protocol, task) for protocol in names("protocol") for task in TASKS if task in read("protocol", protocol)["tasks"]
]
# One model of those that a protocol asks alike.
VARIANTS = list(
    {
        (protocol, task, str(tasks[task])): (protocol, task, model)
        for protocol, task in PAIRS
        for model, tasks in read("protocol", protocol).get("models", {}).items()
        if {"task.template", "task.turns"} & set(tasks.get(task, ()))
    }.values()
)
TEMPLATES = [(task, template) for task in TASKS for template in ("own-1", "own-2")]


@cache
def composed(task: str) -> DictConfig:
    """Return the config of a task under our own protocol."""
    return compose([f"task={task}"])


def made(task: str, protocol: str = "own", model: str = "", **changes: object) -> QuestionTask:
    """Return a task under a protocol, with what that sets for a model."""
    cfg = composed(task).copy()
    cfg.protocol = OmegaConf.create(read("protocol", protocol))
    if model:
        cfg.model.name = model
        for override in parse(protocols.settings(cfg, [])):
            if override.key_or_group.startswith("task."):
                OmegaConf.update(cfg, override.key_or_group, override.value())
    cfg.task.merge_with({"samples": 2, **changes})
    built = build_task(cfg)
    assert isinstance(built, QuestionTask)
    return built


def prompts(task: str, protocol: str = "own", model: str = "", **changes: object) -> list[Prompt]:
    """Return the prompts of the two samples with the smallest digests."""
    return [sample.prompt for sample in made(task, protocol, model, **changes).instances()]


def asked() -> dict[str, list[Prompt]]:
    """Return the prompts of every protocol, task and model with a wording of its own, and of both wordings of ours."""
    found = {f"{protocol}/{task}": prompts(task, protocol) for protocol, task in PAIRS}
    found |= {f"{protocol}/{task}/{model}": prompts(task, protocol, model) for protocol, task, model in VARIANTS}
    return found | {f"own/{task}/{template}": prompts(task, template=template) for task, template in TEMPLATES}


def test_prompts_are_the_recorded_ones(request: pytest.FixtureRequest) -> None:
    """Guards every word, example and turn: a changed prompt is another protocol.

    `pytest --update-golden` rewrites the record.
    """
    found = asked()
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("protocol", "task", "model"), [*((*pair, "") for pair in PAIRS), *VARIANTS])
def test_problems_stand_whole_in_prompts(protocol: str, task: str, model: str) -> None:
    """Guards code with braces in it, and against fields that nobody fills in, such as `{header}` in a prefix."""
    built = made(task, protocol, model)
    style = built.subject.styles[built.template]
    for sample in built.instances():
        prompt, words = sample.prompt, sample.instance.words
        text = prompt if isinstance(prompt, str) else "\n".join(turn["content"] for turn in prompt)
        assert fill(style.question, words) in text and text.endswith(fill(style.prefix, words))
        assert not {name for name in words if f"{{{name}}}" in text}


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


@pytest.mark.parametrize("model", ["dream_7b_instruct", "dparallel_dream_7b"])
def test_dparallel_asks_dream_as_its_task_files_do(model: str) -> None:
    """Guards stop strings and readings that belong to the other model of the paper."""
    built = made("humaneval", "dparallel", model)
    assert (built.stop, built.reading) == (["\nclass", "\ndef", "\n#", "\nif", "\nprint"], "before_fence")
    built = made("mbpp", "dparallel", model)
    assert (built.stop, built.reading, built.shots) == (["```"], "raw", 0)
    built = made("gsm8k", "dparallel", model)
    assert (built.stop, built.reading) == (["Q:", "</s>", "<|im_end|>"], "lm_eval_cot")
    built = made("humaneval", "dparallel", "llada_8b_instruct")
    assert (built.stop, built.reading) == ([], "sanitize")


def test_opencompass_closes_its_turns_as_published() -> None:
    """Guards the form: line ends at the end of worked turns, and a turn `[BEGIN]` that is closed before the answer."""
    *shown, asks, begun, opened = prompts("mbpp", "llada_oc")[0]
    assert [turn["role"] for turn in (asks, begun, opened)] == ["user", "assistant", "assistant"]  # type: ignore[index]
    assert (begun["content"], opened["content"]) == ("[BEGIN]\n", "")  # type: ignore[index]
    for turn in shown[1::2]:
        assert turn["content"].startswith("[BEGIN]\n '")  # type: ignore[index]
        assert turn["content"].endswith("' \n[DONE] \n\n ")  # type: ignore[index]
    answers = [turn["content"] for turn in prompts("gsm8k", "llada_oc")[0] if turn["role"] == "assistant"]  # type: ignore[index]
    assert [answer.rpartition("The answer is")[2] for answer in answers] == [" 4\n", " 201\n", " 140\n", " 146\n"]


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
    assert compose(overrides).overrides == [*overrides, "method.block_length=32"]
    assert compose(["task=list_copy"]).overrides == ["task=list_copy"]


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

    def told(*overrides: str) -> object:
        return describe(build_task(compose(overrides)))

    assert told("task=gsm8k") != told("task=gsm8k", "protocol=d1")
    assert "protocol" not in str(told("task=list_copy"))


def test_a_model_of_symbols_is_refused() -> None:
    """Guards the message: a task in words on a model that knows 128 symbols."""
    with pytest.raises(ConfigError, match=r"^task=gsm8k: is written in words, and model=tiny_mdm reads symbols only"):
        compatibility.check(compose(["task=gsm8k"]))


def test_protocols_are_listed() -> None:
    """Guards `decbench list protocols`: every entry says which tasks it has."""
    entries = {str(entry["name"]): entry["tasks"] for entry in entries_of("protocol")}
    assert set(entries) == {"own", "llada_lmeval", "llada_oc", "dream_instruct", "fast_dllm", "dparallel", "d1"}
    ours = [entry["name"] for entry in entries_of("protocol") if entry["reconstructed"]]
    assert ours == ["d1", "dparallel", "llada_oc"]
    assert entries["d1"] == ["gsm8k", "math500", "countdown", "sudoku"]
