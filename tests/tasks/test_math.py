"""GSM8K and MATH-500 as the runner sees them: reference answers are right under every rule, wrong ones are not."""

import hashlib
import importlib.util
import time
from importlib.metadata import PackageNotFoundError

import pytest

from harness.config.build import build_task
from harness.config.composition import compose
from harness.errors import ConfigError, DataError
from tasks.math import Gsm8k, Math500, latex, verifier
from tasks.math.verifier import Verifier
from tasks.task import Grading

needs_math_verify = pytest.mark.skipif(
    importlib.util.find_spec("math_verify") is None, reason="the extra math is not installed"
)
# sha256 of all prompts in order, joined by zero bytes, as lm-evaluation-harness 0.4.13 builds them (seed 1234).
LM_EVAL_PROMPTS = {
    "fast_dllm": "84119a05b6c77e92415182c7963444e153dd2df04e05e238744f26b105c0a8b6",
    "dream": "d178f26dfbf4eb9ee747b44d24accab731661a06c7cb08d7e236b5aab4d6fb94",
}


def gsm8k(**settings: object) -> Gsm8k:
    return Gsm8k(**{"name": "g", "template": "own-1", "reading": "own", "samples": 20} | settings)


def math500(**settings: object) -> Math500:
    return Math500(**{"name": "m", "template": "own-1", "reading": "own", "grader": "text"} | settings)


def digest(prompts: list[str]) -> str:
    return hashlib.sha256("\0".join(prompts).encode()).hexdigest()


def test_few_shot_prompts_are_those_of_lm_eval() -> None:
    """Guards parity to the letter: the examples of each problem come from one running generator."""
    task = build_task(compose(["task=gsm8k", "protocol=fast_dllm", "task.turns=text"]))
    assert digest([sample.prompt for sample in task.instances()]) == LM_EVAL_PROMPTS["fast_dllm"]


def test_zero_shot_prompts_are_those_of_lm_eval() -> None:
    """Guards parity of the chain-of-thought wording."""
    task = gsm8k(template="lm_eval_cot_zeroshot", turns="text", samples=None)
    assert digest([sample.prompt for sample in task.instances()]) == LM_EVAL_PROMPTS["dream"]


def test_a_subset_keeps_the_examples_of_the_whole() -> None:
    """Guards against examples that change with the number of samples: the subset would be another protocol."""
    setting = {"template": "lm_eval", "turns": "text", "shots": 5, "shots_from": "lm_eval"}
    whole = {sample.id: sample.prompt for sample in gsm8k(**setting, samples=None).instances()}
    some = gsm8k(**setting, samples=7).instances()
    assert len(some) == 7 and all(whole[sample.id] == sample.prompt for sample in some)


@pytest.mark.parametrize("reading", ["own", "lm_eval", "d1"])
def test_gold_answers_are_right(reading: str) -> None:
    """Guards the graders: the reference solution of every problem counts."""
    task = gsm8k(reading=reading, samples=None)
    scores = [task.score(sample, sample.instance.words["answer"]) for sample in task.instances()]
    assert len(scores) == 1319
    assert all(score.correct and score.strict and not score.detail for score in scores)


def test_opencompass_misreads_thousands() -> None:
    """Guards parity: 14 reference answers have commas, of which its pattern sees the end only."""
    task = gsm8k(reading="opencompass", samples=None)
    wrong = [s for s in task.instances() if not task.score(s, s.instance.words["answer"]).correct]
    assert len(wrong) == 14 and all("," in s.instance.words["answer"].partition("#### ")[2] for s in wrong)


@pytest.mark.parametrize("template", Gsm8k.subject.styles)
def test_worked_answers_are_right_under_own_rules(template: str) -> None:
    """Guards the wordings: a worked example in a form that its own grader does not understand."""
    task = gsm8k(template=template)
    answer = task.subject.styles[template].answer
    assert all(task.score(s, answer.format_map(s.instance.words)).correct for s in task.instances())


def test_a_wrong_number_is_wrong() -> None:
    """Guards against a grader that is content with any number."""
    task = gsm8k()
    for sample in task.instances():
        other = int(sample.instance.words["value"]) + 1
        score = task.score(sample, f"the answer is \\boxed{{{other}}}")
        assert (score.correct, score.extracted, score.path) == (False, str(other), "boxed")
        assert score.detail == "wrong number" and score.measures["lm_eval_flexible"] == 0
    assert task.score(task.instances()[0], "").detail == "no number found"


def test_text_after_a_stop_string_does_not_count() -> None:
    """Guards the stop rule: base models go on with a question and answer of their own."""
    task = gsm8k(stop=["Question:", "\n\n\n"])
    sample = task.instances()[0]
    value = sample.instance.words["value"]
    assert task.score(sample, f"{value}\n\n\n1 Question: 2").extracted == value


def test_rows_of_a_file_are_asked(tmp_path) -> None:
    """Guards data by path: another set under the same rules, with its own ids."""
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": "#### 2", "id": "sum"}\n')
    (sample,) = gsm8k(data=str(path), samples=None).instances()
    assert sample.id == "sum" and "1 + 1?" in sample.prompt[0]["content"]
    with pytest.raises(DataError, match=r"task.samples=20: .*mine.jsonl has 1 problems to ask"):
        gsm8k(data=str(path)).instances()
    path.write_text('{"question": "1 + 1?", "answer": "two"}\n')
    with pytest.raises(DataError, match=r"mine.jsonl, row 1: field 'answer': must end in '#### ' and a number"):
        gsm8k(data=str(path), samples=None).instances()
    path.write_text('{"question": "1?", "answer": "#### 1", "id": "a"}\n' * 2)
    with pytest.raises(DataError, match=r"mine.jsonl, row 2: id 'a' stands in an earlier row"):
        gsm8k(data=str(path), samples=None).instances()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"template": "own-3"}, r"task.template=own-3: must be one of own-1, .*did you mean own-"),
        ({"reading": "best"}, r"task.reading=best: must be one of own, lm_eval"),
        ({"set": "train"}, r"task.set=train: must be one of test"),
        ({"turns": "two"}, r"task.turns=two: must be one of text, one, many"),
        ({"shots_from": "dev"}, r"task.shots_from=dev: must be one of head, lm_eval, opencompass"),
        ({"samples": 0}, r"task.samples=0: must be at least 1"),
        ({"shots": -1}, r"task.shots=-1: must be at least 0"),
        ({"stop": [""]}, r"task.stop=\[''\]: an empty stop string"),
    ],
)
def test_unusable_settings_name_key_and_value(setting: dict[str, object], message: str) -> None:
    """Guards against a setting that is found out only in the middle of a run."""
    with pytest.raises(ConfigError, match=message):
        gsm8k(**setting)


EQUAL = [
    (r"\dfrac{1}{2}", r"\frac12"),
    ("0.5", r"\frac{1}{2}"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    (r"90^\circ", "90"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"10\%", "10"),
    ("13{,}535", "13535"),
    ("x=5", "5"),
    (r"11\sqrt2", r"11\sqrt{2}"),
    (r"-\frac{3}{6}", "-1/2"),
    ("2.0", "2"),
]
DIFFERENT = [
    (r"\frac{1}{2}", r"\frac{2}{1}"),
    ("(1,2)", "(2,1)"),
    ("1,2", "12"),
    ("", ""),
    ("x", "y"),
    ("0.50", "0.51"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_differences_of_writing_do_not_count(one: str, other: str) -> None:
    """Guards the normal form."""
    assert latex.equal(one, other) and latex.equal(other, one)


def test_numbers_of_thousands_of_digits_are_graded() -> None:
    """Guards a run against an answer that counts for ever: Python turns no such text into a number."""
    long = "1" * 5000
    assert latex.rational(long) is latex.rational(f"{long}/{long}") is latex.rational(rf"\frac{{{long}}}{{7}}") is None
    assert latex.equal(long, long) and not latex.equal(long, "1")


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_differences_of_value_count(one: str, other: str) -> None:
    """Guards against a normal form that throws away what an answer says."""
    assert not latex.equal(one, other)


def test_reference_solutions_are_right_by_text() -> None:
    """Guards reading and normal form: the solutions contain the answers that stand beside them."""
    task = math500()
    scores = [task.score(sample, sample.instance.words["solution"]) for sample in task.instances()]
    assert len(scores) == 500 and all(score.correct for score in scores)


def test_answers_between_tags_are_read() -> None:
    """Guards the reading of d1: boxed or bare inside the tag, boxed anywhere without one."""
    task = math500(reading="d1", samples=1)
    (sample,) = task.instances()
    gold = sample.instance.gold
    for text in (f"\\boxed{{0}}<answer>\\boxed{{{gold}}}</answer>", f"<answer>\n{gold}\n", f"\\boxed{{{gold}}}"):
        assert task.score(sample, text).correct
    assert task.score(sample, "<answer></answer>").correct is False


def test_an_answer_without_a_number_in_its_tag_is_looked_for_outside() -> None:
    """Guards the reading of d1 for GSM8K: what is in the tag counts, unless there is no number in it."""
    task = gsm8k(reading="d1", samples=1)
    (sample,) = task.instances()
    right = f"\\boxed{{{sample.instance.gold.partition('#### ')[2]}}}"
    assert task.score(sample, f"{right} <answer>as above</answer>").correct
    assert task.score(sample, f"{right} <answer>-7</answer>").correct is False


def test_a_tag_that_holds_two_numbers_is_not_looked_past() -> None:
    """Guards tagged answers: what was said there is judged, and a right number elsewhere does not stand in for it."""
    (sample,) = (task := gsm8k(reading="d1", samples=1)).instances()
    gold = sample.instance.gold.partition("#### ")[2]
    said = rf"#### {gold} <answer>\boxed{{{gold}\text{{ or }}6}}</answer>"
    assert task.score(sample, f"<answer>{gold}</answer>").correct
    assert not task.score(sample, said).correct


def test_without_math_verify_the_task_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against finding out after hours of decoding that nothing can be graded."""

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(verifier, "version", missing)
    with pytest.raises(ConfigError, match=r"pip install 'decbench\[math\]'; task.grader=text does without"):
        math500(grader="math_verify").grading()
    assert math500(grader="text").grading() == Grading()


@needs_math_verify
def test_symbolic_equality_is_seen() -> None:
    """Guards the second verdict: equal expressions in other words, and both verdicts on record."""
    task = math500(grader="math_verify")
    (sample,) = (s for s in task.instances() if s.instance.gold == r"\left( 3, \frac{\pi}{2} \right)")
    score = task.score(sample, r"\boxed{(6/2, \pi/2)}")
    assert (score.correct, score.strict, score.detail) == (True, False, "")
    assert score.measures == {"text": 0.0, "math_verify": 1.0}
    assert not task.score(sample, r"\boxed{(3, \pi)}").correct


@needs_math_verify
def test_an_endless_expression_does_not_stop_a_run() -> None:
    """Guards the bound on time: powers of powers are wrong, and the next answer is graded as ever."""
    worker, start = Verifier(limit_s=1), time.monotonic()
    assert worker.equal("0.5", r"\frac{1}{2}") is True
    assert not worker.equal("1", "9^{9^{9^{9^{9}}}}")
    assert worker.equal("0.5", r"\frac{1}{2}") is True
    assert time.monotonic() - start < 60
    worker.close()
