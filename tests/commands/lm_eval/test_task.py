"""Tasks of lm-evaluation-harness as tasks here: found, refused, worded, graded and told apart."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.config.build import build_task
from harness.config.compatibility import check
from harness.config.composition import compose
from harness.errors import ConfigError, DataError
from harness.results.store import Store
from tasks.lm_eval import LmEvalTask
from tests.commands.lm_eval import local


def made(folder: Path, name: str, **settings: Any) -> LmEvalTask:
    """Return the task of a local folder."""
    return LmEvalTask(name=name, include_path=str(folder), **settings)


def test_gsm8k_is_asked_in_the_library_s_own_words() -> None:
    """Guards the name of a public task with what is shipped, and our own protocol's claim to ask the same."""
    task = build_task(compose(["task=lm_eval", "task.name=gsm8k", "task.samples=2"]))
    samples = task.instances()
    ours = build_task(compose(["task=gsm8k", "protocol=llada_lmeval", "task.subset=first", "task.samples=2"]))
    assert [sample.prompt for sample in samples] == [sample.prompt for sample in ours.instances()]
    gold = samples[0].instance.doc["answer"]
    right, strict = task.score(samples[0], f" {gold}\n\nQuestion: #### 7"), task.score(samples[0], "It is 18.")
    assert right.correct and right.path == "strict-match" and right.extracted == "18"
    assert not strict.correct and strict.measures["exact_match,flexible-extract"] == 1
    assert task.gen_length == 256 and task.sources()[0].startswith("0.4.13-")


def test_length_examples_and_turns_come_from_the_definition(tmp_path: Path) -> None:
    """Guards the way from max_gen_toks to the canvas, and prompts as turns for the model's own template."""
    splits = {"test": local.WORDS, "train": local.WORDS[::-1]}
    folder = local.write(tmp_path / "t", "sums", splits, fewshot_split="train", num_fewshot=1, gen_prefix="It is")
    chosen = ["task=lm_eval", "task.name=sums", f"task.include_path={folder}"]
    cfg = compose([*chosen, "task.turns=many"])
    assert cfg.gen_length == 16 and f"task.gen_length={cfg.gen_length}" in cfg.overrides
    assert compose([*chosen, "gen_length=32"]).gen_length == 32
    prompt = build_task(cfg).instances()[0].prompt
    assert [turn["role"] for turn in prompt] == ["user", "assistant", "user", "assistant"]
    assert prompt[2:] == [{"role": "user", "content": "0 + 0?"}, {"role": "assistant", "content": "It is"}]
    one = made(folder, "sums", turns="one").instances()[0].prompt
    assert [turn["role"] for turn in one] == ["user", "assistant"]
    assert made(folder, "sums", num_fewshot=0).instances()[1].prompt == "1 + 1? It is"


def test_a_user_s_files_replace_the_data_set(tmp_path: Path) -> None:
    """Guards machines without a hub: any public task on rows of one's own, and a new version with them."""
    file = tmp_path / "mine.jsonl"
    chosen = ["task=lm_eval", "task.name=gsm8k", "task.num_fewshot=0", f"task.data={{train:{file},test:{file}}}"]
    versions = []
    for answer in ("4", "5", "5"):
        file.write_text(json.dumps({"question": "Two and two?", "answer": f"It is so. #### {answer}"}) + "\n")
        task = build_task(compose(chosen))
        (sample,) = task.instances()
        assert sample.prompt == "Question: Two and two?\nAnswer:"
        assert task.score(sample, f"#### {answer}").correct
        versions.append(task.sources())
    assert versions[0] != versions[1] == versions[2]


def test_metric_and_filter_choose_the_verdict(tmp_path: Path) -> None:
    """Guards what counts as correct where a task has several readings of an answer."""
    folder = local.write(tmp_path / "t", "sums", {"test": local.WORDS}, **local.LAST_NUMBER)
    verdicts = []
    for settings in ({}, {"filter": "number"}, {"metric": "exact_match", "filter": "number"}):
        task = made(folder, "sums", **settings)
        verdicts.append(task.score(task.instances()[1], "makes 2\nand 3"))
    assert [(v.correct, v.path, v.extracted) for v in verdicts] == [
        *[(False, "whole", "makes 2"), (True, "number", "2"), (True, "number", "2")]
    ]
    with pytest.raises(
        ConfigError, match=r"^task.filter=last: no such verdict.*task.metric=exact_match task.filter=wh"
    ):
        made(folder, "sums", filter="last").instances()
    with pytest.raises(ConfigError, match=r"^task.metric=f1: no such verdict on answers"):
        made(folder, "sums", metric="f1").instances()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lm_eval", r"^task.name=lm_eval: say which task"),
        ("gsm8kk", r"^task.name=gsm8kk: no such task in lm-evaluation-harness; did you mean gsm8k\?"),
        ("arc_easy", r"^task.name=arc_easy: asks for multiple_choice, and decoding is what is measured here"),
        ("humaneval", r"^task.name=humaneval: runs programs .*use task=humaneval"),
        ("mmlu", r"^task.name=mmlu: is a group of tasks"),
        ("gsm8k_cot_self_consistency", r"^task.name=gsm8k_cot_self_consistency: asks for 64 answers"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_data(name: str, message: str) -> None:
    """Guards the one line, and that it comes before a model loads or a data set is looked for."""
    with pytest.raises(ConfigError, match=message):
        check(compose(["model=hf_causal", "method=ar_greedy", "task=lm_eval", f"task.name={name}"]))


def test_absent_data_end_in_one_line(tmp_path: Path) -> None:
    """Guards machines without the data set: what is missing, the command that gets it, and the way around."""
    with pytest.raises(
        DataError, match=r"^task.name=triviaqa: .*not in the cache.*hf download --repo-type dataset.*data"
    ):
        LmEvalTask(name="triviaqa").instances()
    folder = local.write(tmp_path / "t", "sums", {"test": local.WORDS})
    (folder / "sums_test.jsonl").unlink()
    with pytest.raises(DataError, match=r"^task.name=sums: cannot be loaded \(FileNotFoundError: .*sums_test.jsonl"):
        made(folder, "sums").instances()


def test_what_hf_download_left_is_enough(tmp_path: Path) -> None:
    """Guards the command that the message above names: its files are found without a network."""
    folder = local.write(tmp_path / "t", "sums", {"test": local.WORDS}, dataset_path="owner/sums", dataset_kwargs=None)
    repository = tmp_path / "hub" / "datasets--owner--sums"
    (repository / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (folder / "sums_test.jsonl").rename(repository / "snapshots" / ("a" * 40) / "test.jsonl")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    assert len(made(folder, "sums").instances()) == 5


def test_sampling_that_the_method_does_not_take_is_a_warning(tmp_path: Path) -> None:
    """Guards against a temperature of the definition that nobody applies and nobody mentions."""
    generation = {"until": ["\n"], "do_sample": True, "temperature": 0.7}
    folder = local.write(tmp_path / "t", "sums", {"test": local.WORDS}, generation_kwargs=generation)
    (warning,) = made(folder, "sums").grading().warnings
    assert warning.startswith("task.name=sums: asks for do_sample=True, temperature=0.7")


def test_without_the_package_the_task_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards an installation without the extra."""
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "lm_eval" else find(name))
    with pytest.raises(ConfigError, match=r"needs the package lm_eval: pip install 'decbench\[lm-eval\]'"):
        compose(["task=lm_eval", "task.name=gsm8k"])


def test_the_command_runs_a_local_task(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Guards the line that a user types, and that nothing of the library's chatter reaches the terminal."""
    folder = local.write_symbols(tmp_path / "mine")
    chosen = ["task=lm_eval", "task.name=symbols", f"task.include_path={folder}", "task.samples=6"]
    chosen += ["task.renderer=tiny", "task.max_items=10", "method=threshold", f"results_dir={tmp_path / 'store'}"]
    assert main(["run", *chosen, "--json"]) == 0
    error = capfd.readouterr().err
    assert "lm_eval" not in error and "%|" not in error
    (row,) = Store(root=tmp_path / "store").read("runs").to_pylist()
    assert (row["task"], row["template"], row["gen_length"]) == ("symbols", "lm_eval", 16)
    assert row["accuracy"] == pytest.approx(4 / 6)
