"""HumanEval and MBPP as the runner sees them: reference solutions pass, mutilated ones fail, nothing else decides."""

import ast
import hashlib

import pytest

from harness.config import compatibility
from harness.config.build import build_task
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.config.identity import describe
from harness.errors import ConfigError, DataError
from tasks import rows
from tasks.code import humaneval, mbpp, sandbox
from tasks.code.sandbox import Isolation, Tier, tiers
from tasks.code.task import CodeTask
from tasks.task import Sample, Score

TASKS = ("humaneval", "mbpp", "mbpp_sanitized")
PUBLISHED = [
    (protocol, task) for protocol in names("protocol") for task in TASKS if task in read("protocol", protocol)["tasks"]
]
# sha256 of all prompts in order, joined by zero bytes, as lm-evaluation-harness 0.4.13 builds them.
LM_EVAL_PROMPTS = {
    "humaneval": "6a712466e64fa7d27ca572fefd68e30c7a0c05b799232c5700220fb5b96e7d62",
    "mbpp": "b09746904aefaa696bf54d6663046bc5f84f3e32d0d239213c3e5ba298aa697c",
}


def task(name: str, *overrides: str) -> CodeTask:
    made = build_task(compose([f"task={name}", *overrides]))
    assert isinstance(made, CodeTask)
    return made


def judged(made: CodeTask, texts: list[tuple[Sample, str]]) -> list[Score]:
    """Score answers as `score` does, side by side."""
    reading = made.subject.readings[made.reading]
    return made.judge([(sample.instance, reading(text, sample.instance)) for sample, text in texts])


def answers(made: CodeTask, *, mutilated: bool = False) -> list[tuple[Sample, str]]:
    """Return the reference answer to every problem, worded as the template does, or one that returns nothing."""
    answer = made.subject.styles[made.template].answer
    texts = []
    for sample in made.instances():
        text = answer.format_map(sample.instance.words)
        texts.append((sample, without_results(text) if mutilated else text))
    return texts


def without_results(text: str) -> str:
    """Make every return statement of the program in an answer return None."""
    lines = text.split("\n")
    tree = ast.parse("\n".join(line for line in lines if not line.startswith("```")))
    for node in ast.walk(tree):
        if isinstance(node, ast.Return):
            node.value = ast.Constant(value=None)
    return f"```python\n{ast.unparse(tree)}\n```"


def failures(scores: list[Score], made: CodeTask) -> list[str]:
    return [sample.id for sample, score in zip(made.instances(), scores, strict=True) if not score.correct]


@pytest.mark.parametrize("name", TASKS)
def test_reference_solutions_pass_and_mutilated_ones_fail(name: str) -> None:
    """Guards the grader on a sample of the problems: a test that is not run, or a program that cannot pass."""
    made = task(name, "task.samples=12")
    assert failures(judged(made, answers(made)), made) == []
    scores = judged(made, answers(made, mutilated=True))
    assert [score for score in scores if score.correct] == []
    assert {score.detail.split(":")[0] for score in scores} <= {"wrong_answer", "error"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "count"), [("humaneval", 164), ("mbpp", 500), ("mbpp_sanitized", 257)])
def test_all_reference_solutions_pass_and_all_mutilated_ones_fail(name: str, count: int) -> None:
    """Guards the data, the extraction and the grader on every problem."""
    made = task(name)
    assert len(made.instances()) == count
    assert failures(judged(made, answers(made)), made) == []
    assert len(failures(judged(made, answers(made, mutilated=True)), made)) == count


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("file", "count"), [("mbpp.jsonl.gz", 974), ("mbpp_sanitized.jsonl.gz", 427)])
def test_every_row_of_mbpp_can_be_solved(file: str, count: int) -> None:
    """Guards the rows outside the test range, from which worked examples and training problems come."""
    problems = [
        mbpp.read_problem("test", row, number) for number, row in enumerate(rows.shipped(mbpp.FOLDER, file), start=1)
    ]
    programs = [problem.gold.program(problem.words["solution"], setup=True) for problem in problems]
    assert len(programs) == count
    assert [v.status for v in sandbox.run_many(programs) if not v.passed] == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_published_evaluation_has_one_problem_without_answer() -> None:
    """Guards parity: without its set-up code the reference solution of problem 367 fails, and no other."""
    made = task("mbpp", "protocol=fast_dllm", "task.wall_s=30")
    assert failures(judged(made, [(s, s.instance.words["code"]) for s in made.instances()]), made) == ["mbpp/367"]


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_prompts_are_those_of_lm_eval(name: str) -> None:
    """Guards parity to the letter, worked examples included."""
    made = task(name, "protocol=llada_lmeval")
    prompts = [str(sample.prompt) for sample in made.instances()]
    assert hashlib.sha256("\0".join(prompts).encode()).hexdigest() == LM_EVAL_PROMPTS[name]


@pytest.mark.parametrize(("protocol", "name"), PUBLISHED)
def test_reference_solutions_pass_under_every_protocol(protocol: str, name: str) -> None:
    """Guards readings against prompts: an answer in the form that a protocol asks for must count."""
    made = task(name, f"protocol={protocol}", "task.samples=3", "task.wall_s=30")
    texts = answers(made)
    cut = [(sample, text.partition(made.stop[0])[0] if made.stop else text) for sample, text in texts]
    assert failures(judged(made, cut), made) == []


@pytest.mark.parametrize("name", TASKS)
def test_own_wordings_differ(name: str) -> None:
    """Guards the spread over templates: two names for one wording would have none."""
    first, second = (task(name, "task.samples=1", f"task.template={t}").instances()[0] for t in ("own-1", "own-2"))
    assert first.id == second.id and first.prompt != second.prompt


def test_limits_are_those_of_the_protocol() -> None:
    """Guards parity: published evaluations give a program three seconds, or ten."""
    assert task("humaneval").wall_s == 30
    assert task("humaneval", "protocol=fast_dllm").wall_s == 3
    assert task("mbpp", "protocol=llada_oc").wall_s == 10


def test_scores_say_what_happened() -> None:
    """Guards the stored row: how the program was found and how it ended."""
    made = task("humaneval", "task.samples=1")
    sample = made.instances()[0]
    right = made.score(sample, answers(made)[0][1])
    assert (right.correct, right.path, right.detail) == (True, "fence", "")
    assert right.extracted is not None and right.extracted.startswith(sample.instance.gold.header)
    assert made.score(sample, "I do not know.").detail == "no_code"
    name = sample.instance.gold.entry_point
    assert made.score(sample, f"def {name}(*_):\n    raise KeyError('lost')").detail == "error:KeyError: 'lost'"
    assert made.score(sample, f"import sys\ndef {name}(*_):\n    sys.exit()").detail.startswith("exited")


def test_a_timeout_is_tried_twice() -> None:
    """Guards both verdicts: a busy machine must not make an answer wrong, nor hide that it was slow."""
    made = task("humaneval", "task.samples=1", "task.wall_s=0.3")
    sample = made.instances()[0]
    score = made.score(sample, f"def {sample.instance.gold.entry_point}(*_):\n    while True: pass")
    assert score.detail.startswith("timeout") and score.measures == {"timeouts": 2.0}


def test_the_tier_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards provenance: a number must say how its programs were shut in, and unsafe runs must warn."""
    grading = task("humaneval").grading()
    assert grading.facts["sandbox_tier"] in (1, 2, 3) and grading.facts["sandbox_python"]
    assert grading.warnings == ()
    monkeypatch.setattr(tiers, "isolation", lambda: Isolation(tier=Tier.LIMITS, missing={}))
    with pytest.raises(ConfigError, match="sandbox=unsafe"):
        task("humaneval").grading()
    assert "sandbox=unsafe" in task("humaneval", "sandbox=unsafe").grading().warnings[0]


def test_a_machine_that_cannot_grade_refuses_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards hours of decoding whose answers nobody may run."""
    monkeypatch.setattr(tiers, "isolation", lambda: Isolation(tier=Tier.LIMITS, missing={}))
    cfg = compose(["task=humaneval"])
    cfg.model.tokenizer = "text"
    cfg.model.max_length = 4096
    with pytest.raises(ConfigError, match=r"^sandbox=safe: "):
        compatibility.check(cfg)


def test_the_sandbox_is_part_of_the_name_of_code_runs_only() -> None:
    """Guards resuming: unsafe verdicts are other verdicts, and list tasks have none."""

    def name(*overrides: str) -> str:
        return str(describe(build_task(compose(overrides))))

    assert name("task=humaneval") != name("task=humaneval", "sandbox=unsafe")
    assert name("task=list_copy") == name("task=list_copy", "sandbox=unsafe")


@pytest.mark.parametrize("setting", ["task.sandbox=no", "task.wall_s=0", "task.cpu_s=0", "task.reading=sanitise"])
def test_unusable_settings_name_key_and_value(setting: str) -> None:
    """Guards against a setting that is found out only in the middle of a run."""
    key, _, value = setting.partition("=")
    with pytest.raises(ConfigError, match=rf"^{key}={value}(\.0)?: must be "):
        task("humaneval", setting)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "t", "code": "def f(): pass", "test_list": []}, "field 'test_list'"),
        ({"code": "def f(): pass", "test_list": ["assert f()"]}, "field 'text'"),
        ({"text": "t", "code": "def f(", "test_list": ["assert f()"]}, "not Python"),
        ({"text": "t", "code": "def f(): pass", "test_list": ["assert g()"]}, "must call a function"),
    ],
)
def test_broken_rows_are_named(row: dict[str, object], message: str) -> None:
    """Guards users' own files: a row that cannot be asked must not end in a KeyError."""
    with pytest.raises(DataError, match=message):
        mbpp.read_problem("test", {"task_id": 1} | row, 1)


def test_headers_must_define_what_is_asked() -> None:
    """Guards users' own files of the form of HumanEval."""
    row = {"task_id": "a", "prompt": "def g(): pass\n", "entry_point": "f", "test": "", "canonical_solution": ""}
    with pytest.raises(DataError, match="defines 'f'"):
        humaneval.read_problem("test", row, 1)
