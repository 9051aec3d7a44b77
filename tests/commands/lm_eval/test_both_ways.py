"""One task of lm-evaluation-harness, run here and run there: the same answers, scores and counters."""

import functools
import json
from pathlib import Path
from string import ascii_letters
from typing import Any

import lm_eval
import pytest
from lm_eval.tasks import TaskManager

from harness.cli import main
from harness.commands.lm_eval import command
from harness.config.composition import compose
from harness.results.schemas import COUNTERS
from harness.results.store import Store
from harness.runs.runner import run
from tests.commands.lm_eval import local
from tests.models.public import miniature
from tests.models.public.miniature import KINDS


def here(results_dir: Path, folder: Path, name: str, *overrides: str) -> list[dict[str, Any]]:
    """Run a local task as a task of decbench; return the rows of its samples."""
    task = ["task=lm_eval", f"task.name={name}", f"task.include_path={folder}"]
    assert run(compose([*task, f"results_dir={results_dir}", "batch_size=2", *overrides])).status == "ok"
    return Store(root=results_dir).read("samples").to_pylist()


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch):
    """Run a local task by lm-evaluation-harness's own evaluator, with decbench as the model."""
    # It asks the machine for its packages, which takes longer than everything else here.
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    command.register()

    def evaluate(folder: Path, name: str, model_args: str, **options: Any) -> dict[str, Any]:
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        found = lm_eval.simple_evaluate(
            model="decbench",
            model_args=model_args,
            tasks=[name],
            task_manager=manager,
            batch_size=2,
            bootstrap_iters=0,
            **options,
        )
        assert found is not None
        return found

    return evaluate


def require_equal(rows: list[dict[str, Any]], found: dict[str, Any], name: str, filters: tuple[str, ...]) -> None:
    """Compare answers, every filter's score, and the sum of every counter."""
    for one in filters:
        logged = sorted((s for s in found["samples"][name] if s["filter"] == one), key=lambda s: s["doc_id"])
        assert [str(s["doc_id"]) for s in logged] == [row["sample_id"] for row in rows]
        mine = [json.loads(row["measures"])[f"exact_match,{one}"] for row in rows]
        assert mine == [s["exact_match"] for s in logged]
        assert found["results"][name][f"exact_match,{one}"] == pytest.approx(sum(mine) / len(mine))
        assert all(row["output_text"].startswith(s["resps"][0][0]) for row, s in zip(rows, logged, strict=True))
    about = found["config"]["decbench"]
    assert {key: about[key] for key in COUNTERS} == {key: sum(row[key] for row in rows) for key in COUNTERS}
    assert about["requests"] == len(rows)


def test_a_trained_model_gets_the_same_scores_both_ways(results_dir: Path, tmp_path: Path, there: Any) -> None:
    """Guards the whole of both streets with answers that are right, and references that are not."""
    folder = local.write_symbols(tmp_path / "tasks")
    laid_out = ("task.renderer=tiny", "task.max_items=10")
    rows = here(results_dir, folder, "symbols", "model=tiny_mdm", "method=threshold", *laid_out)
    found = there(folder, "symbols", "model=tiny_mdm,method=threshold")
    require_equal(rows, found, "symbols", ("none",))
    assert [row["correct"] for row in rows] == [False, True, True] * 3
    assert found["config"]["decbench"]["setting"] == "threshold"


def test_text_with_examples_in_turns_is_the_same_both_ways(results_dir: Path, tmp_path: Path, there: Any) -> None:
    """Guards chat turns, drawn examples, an answer that is begun, stop strings, seeds and a length from model_args."""
    miniature.write(tmp_path / "mini", KINDS["llada"])
    folder = local.write(
        *(tmp_path / "tasks", "sums", {"test": local.WORDS, "train": local.WORDS[::-1]}),
        **{"fewshot_split": "train", "num_fewshot": 2, "gen_prefix": "It is", "description": "Add."},
        **{"generation_kwargs": {"until": list(ascii_letters), "max_gen_toks": 64}, **local.LAST_NUMBER},
    )
    sampled = ["model=llada_8b_instruct", f"model.path={tmp_path / 'mini'}", "method=llada", "seed=3", "gen_length=8"]
    sampled.append("method.temperature=1.5")
    rows = here(results_dir, folder, "sums", *sampled, "task.turns=many", "task.samples=4")
    found = there(folder, "sums", ",".join(sampled), apply_chat_template=True, limit=4)
    require_equal(rows, found, "sums", ("whole", "number"))
    answers = [s["resps"][0][0] for s in found["samples"]["sums"]]
    assert not any(letter in answer for letter in ascii_letters for answer in answers)
    assert all(row["output_text"] != answer for row, answer in zip(rows, answers[::2], strict=True))
    assert all(row["tokens_canvas"] == 8 for row in rows)


def test_likelihoods_are_refused(tmp_path: Path, there: Any) -> None:
    """Guards against numbers that no decoding took part in."""
    folder = local.write(tmp_path / "tasks", "choice", {"test": local.WORDS}, output_type="loglikelihood")
    with pytest.raises(ValueError, match=r"^--tasks choice: asks for loglikelihood.*generate_until"):
        there(folder, "choice", "model=random_mdm")


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ("model=tiny_mdm,task=list_copy", r"^task=list_copy: no setting of a model; .*gen_length"),
        ("model=tiny_mdm,method=thresold", r"^method=thresold: .*did you mean threshold\?"),
        ("model=tiny_ar,method=threshold", r"^method=threshold: does not run on model=tiny_ar"),
        ("model=tiny_mdm,batch_size=auto", r"^batch_size=auto: "),
        ("model=tiny_mdm,method=threshold,method.block_length=5", r"^method.block_length=5: must divide gen_length=16"),
    ],
)
def test_unusable_settings_name_themselves(model_args: str, message: str, tmp_path: Path, there: Any) -> None:
    """Guards the one line that a user of the other command line gets."""
    folder = local.write_symbols(tmp_path / "tasks")
    with pytest.raises(ValueError, match=message):
        there(folder, "symbols", model_args)


def test_several_answers_to_one_question_differ(tmp_path: Path, there: Any) -> None:
    """Guards repeats: one seed for all of them would make a vote of equal voices."""
    miniature.write(tmp_path / "mini", KINDS["llada"])
    folder = local.write(tmp_path / "tasks", "votes", {"test": local.WORDS[:2]}, repeats=2)
    args = f"model=llada_8b_instruct,model.path={tmp_path / 'mini'},method=llada,method.temperature=1.5,gen_length=8"
    answers = [sample["resps"][0] for sample in there(folder, "votes", args)["samples"]["votes"]]
    assert [len({*several}) for several in answers] == [2, 2]


def test_the_command_hands_over_to_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards `decbench lm_eval`: the library's own arguments, table and files, with our counters in them."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    # The index of all its files takes half a minute.
    monkeypatch.setattr("lm_eval.tasks.TaskManager", functools.partial(TaskManager, include_defaults=False))
    folder = local.write_symbols(tmp_path / "tasks")
    told = ["--model", "decbench", "--model_args", "model=tiny_mdm,method=threshold", "--tasks", "symbols"]
    told += ["--include_path", str(folder), "--limit", "3", "--output_path", str(tmp_path / "out")]
    assert main(["lm_eval", *told]) == 0
    assert "|symbols|" in capsys.readouterr().out
    (file,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(file.read_text())["config"]["decbench"]["requests"] == 3
