"""Tasks in words from the prompt to the graded answer, on miniatures of published models in a filled hub cache."""

import json
from pathlib import Path

import pytest
import yaml

import conf
from harness.config.composition import compose
from harness.results.store import Store
from harness.runs.runner import run
from harness.runs.sweep import expand
from tests.conftest import RunDecbench
from tests.models.public import miniature
from tests.models.public.miniature import KINDS

CONF = Path(conf.__file__).parent
SWEEP = ["experiment=paper_smoke"]
# Symbols for embedded models, rows that are not in the package, or a task that the user names.
OTHERS = ("jsonl", "list_", "words_to_sentence", "samsum", "chatgpt_paraphrases", "lm_eval")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fill a hub cache with miniatures under the published names."""
    cache = tmp_path_factory.mktemp("hub")
    for kind in (KINDS["llada"], KINDS["dream"]):
        hub_id = yaml.safe_load((CONF / "model" / f"{kind.model}.yaml").read_text())["hub_id"]
        repository = cache / f"models--{hub_id.replace('/', '--')}"
        miniature.write(repository / "snapshots" / ("a" * 40), kind)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("a" * 40)
    return cache


def test_every_task_reaches_its_grader(hub: Path, results_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards every task against chat templates, lengths and rows; each takes one of the points of the experiment."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    jobs = expand(SWEEP).jobs
    asked = [job[-1].removeprefix("task=") for job in jobs]
    in_words = {path.stem for path in (CONF / "task").glob("*.yaml") if not path.stem.startswith(OTHERS)}
    assert set(asked) == in_words
    points = len(jobs) // len(in_words)
    for number in range(len(in_words)):
        # Task i with point i, in the order of the points, so that a model is loaded once.
        place = number * points // len(in_words) * len(in_words) + number
        short = ["gen_length=8", "task.samples=1", f"results_dir={results_dir}"]
        steps = ["method.steps=2"] if "method=llada" in jobs[place] else []
        record = run(compose([*jobs[place], *short, *steps]))
        assert record.status == "ok", record.row["error"]
    rows = Store(root=results_dir).read("runs").to_pylist()
    assert len(rows) == len(in_words) and {row["n"] for row in rows} == {1}
    assert {row["method"] for row in rows} == {"llada", "threshold", "eb"}


def test_a_run_without_verdicts_is_kept(hub: Path, results_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards rows of the user's own whose grammar nobody can check here: counted, stored, and not called wrong."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    rows = results_dir.parent / "own.jsonl"
    rows.write_text(json.dumps({"answer": {"words": ["cat", "sun"]}}) + "\n")
    settings = ["gen_length=8", "method.steps=2", f"task.data={rows}", f"results_dir={results_dir}"]
    record = run(compose(["model=llada_8b_instruct", "task=words_to_sentence", *settings]))
    assert (record.status, record.row["accuracy"], record.row["n"], record.row["nfe"]) == ("ok", None, 1, 2)
    (sample,) = Store(root=results_dir).read("samples").to_pylist()
    assert sample["correct"] is None and json.loads(sample["measures"])["grammar"] is None
    assert "no LanguageTool server" in sample["detail"] and "verdicts are null" in record.row["warnings"][0]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_experiment_runs_whole(
    hub: Path, run_decbench: RunDecbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the command as its file gives it, all tasks with all points; a minute and a half."""
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    process = run_decbench("run", "-m", *SWEEP, "results_dir=store")
    assert process.returncode == 0, process.stdout
    rows = Store(root=tmp_path / "store").read("runs").to_pylist()
    assert len(rows) == len(expand(SWEEP).jobs) and {row["status"] for row in rows} == {"ok"}
