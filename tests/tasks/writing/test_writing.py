"""Text writing: rows of a user's checkout, measures that are known here, and nulls with a reason for the others."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from harness.config.build import build_task
from harness.config.composition import compose
from harness.errors import ConfigError, DataError
from tasks.task import Score
from tasks.writing import WritingTask, metrics

ROWS = {
    "easy": {"words": ["cat", "sun", "old", "roof"]},
    "samsum": {"text": "Ann: Lunch?\nBob: At noon.", "summary": "Ann and Bob will have lunch at noon."},
    "chatgpt-paraphrases": {"text": "The shop opens at nine in the morning.", "examples": []},
}
TASKS = {"words_to_sentence": "easy", "samsum": "samsum", "chatgpt_paraphrases": "chatgpt-paraphrases"}
GOOD = "The old cat sleeps on the roof in the sun."


class Checker(BaseHTTPRequestHandler):
    """A LanguageTool server with one rule: a sentence ends in a full stop."""

    def do_POST(self) -> None:
        """Answer in the form of /v2/check."""
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        known = self.path == "/v2/check" and form["language"] == ["en-US"]
        reply = {"matches": [] if form["text"][0].endswith(".") else [{"message": "no full stop"}]}
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Run the checker on a free port of this machine."""
    with HTTPServer(("127.0.0.1", 0), Checker) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Lay out a checkout with two rows per set, and training rows that must not be taken."""
    for part in ("test", "train"):
        for name, answer in ROWS.items():
            folder = tmp_path / "some" / part / "text"
            folder.mkdir(parents=True, exist_ok=True)
            row = json.dumps({"input": {}, "answer": answer, "metadata": {"part": part}})
            (folder / f"{name}.jsonl").write_text(f"{row}\n" * 2)
    return tmp_path


def task(name: str, *overrides: str) -> WritingTask:
    built = build_task(compose([f"task={name}", *overrides]))
    assert isinstance(built, WritingTask)
    return built


def graded(checkout: Path, name: str, text: str, **settings: object) -> Score:
    one = task(name, f"task.data={checkout}", *(f"task.{key}={value}" for key, value in settings.items()))
    return one.score(one.instances()[0], text)


@pytest.mark.parametrize("name", TASKS)
def test_rows_of_a_checkout_become_prompts(checkout: Path, name: str) -> None:
    """Guards the sets: rows of the training part, or a field of the question that does not reach the prompt."""
    one = task(name, f"task.data={checkout}")
    samples = one.instances()
    assert [sample.id for sample in samples] == [f"{TASKS[name]}/0", f"{TASKS[name]}/1"]
    (turn,) = samples[0].prompt
    wanted = "cat, sun, old, and roof" if name == "words_to_sentence" else ROWS[TASKS[name]]["text"]
    assert isinstance(turn, dict) and wanted in turn["content"]
    assert one.templates == ("own-1", "own-2")
    assert task(name, f"task.data={checkout}", "task.template=own-2").instances()[0].prompt != samples[0].prompt


@pytest.mark.parametrize("name", TASKS)
def test_what_cannot_be_measured_is_null_with_its_reason(checkout: Path, name: str) -> None:
    """Guards against a substitute for a grammar that nobody checked: no verdict, no product, and why."""
    score = graded(checkout, name, GOOD)
    assert score.correct is None and score.measures["grammar"] is None and score.measures["score"] is None
    assert "grammar: no LanguageTool server" in score.detail
    assert ("bertscore" in score.detail) == (name == "chatgpt_paraphrases")
    grading = task(name, f"task.data={checkout}").grading()
    assert grading.facts == {"grammar": None} and "verdicts are null" in grading.warnings[0]


def test_sentences_need_their_words_and_grammar(checkout: Path, server: str) -> None:
    """Guards the verdict: grammar alone, or words alone, would pass half of the answers."""
    verdicts = {
        text: graded(checkout, "words_to_sentence", text, language_tool=server).correct
        for text in (GOOD, GOOD[:-1], "The cat sleeps on the roof.", GOOD.replace("cat", "category"), "")
    }
    assert list(verdicts.values()) == [True, False, False, False, False]
    assert graded(checkout, "words_to_sentence", GOOD, language_tool=server).measures["score"] == 1.0


def test_words_stand_whole_unless_as_published() -> None:
    """Guards both readings of a word: the published one finds a cat in a category and none in "Cat"."""
    assert metrics.includes("The Cat sat.", ["cat"]) and not metrics.includes("The Cat sat.", ["cat"], compat=True)
    assert not metrics.includes("A category.", ["cat"]) and metrics.includes("A category.", ["cat"], compat=True)
    assert not metrics.includes("Two cats.", ["cat"]) and metrics.includes("Two cats.", ["cat"], plural=True)


def test_summaries_and_paraphrases_are_measured(checkout: Path, server: str) -> None:
    """Guards the numbers: equal texts overlap wholly, and a product with an unknown factor is unknown."""
    equal = graded(checkout, "samsum", ROWS["samsum"]["summary"], language_tool=server)
    assert (equal.correct, equal.measures["rougeL"], equal.measures["score"]) == (True, 1.0, 1.0)
    # Four of the eight words of the reference, in order, out of five: precision 4/5, recall 4/8.
    part = graded(checkout, "samsum", "Ann and Bob eat lunch.", language_tool=server)
    assert part.measures["rougeL"] == pytest.approx(2 * (4 / 5) * (4 / 8) / (4 / 5 + 4 / 8))
    copied = graded(checkout, "chatgpt_paraphrases", ROWS["chatgpt-paraphrases"]["text"], language_tool=server)
    assert (copied.correct, copied.measures["inverse_bleu"], copied.measures["score"]) == (True, pytest.approx(0), None)
    assert graded(checkout, "chatgpt_paraphrases", "Doors unlock early.").measures["inverse_bleu"] == 1.0


def test_missing_rows_and_servers_are_named(checkout: Path) -> None:
    """Guards the messages: what is not there, and what to give, before anything is decoded."""
    with pytest.raises(ConfigError, match=r"task=samsum: its rows are not in the package; give task.data=FOLDER"):
        task("samsum").grading()
    with pytest.raises(ConfigError, match=r"task.language_tool=http://127.0.0.1:9: no answer"):
        task("samsum", f"task.data={checkout}", "task.language_tool=http://127.0.0.1:9").grading()
    with pytest.raises(ConfigError, match=r"task.language_tool=localhost: must be an address"):
        task("samsum", "task.language_tool=localhost")
    with pytest.raises(DataError, match=r"files of the name hard.jsonl: none; .*task.data=FILE"):
        task("words_to_sentence", f"task.data={checkout}", "task.file=hard").instances()
    file = checkout / "own.jsonl"
    file.write_text(json.dumps({"answer": ROWS["samsum"]}) + "\n" + json.dumps({"answer": {"text": "x"}}) + "\n")
    with pytest.raises(DataError, match=r"own.jsonl, row 2: field 'answer.summary' must be a str that is not empty"):
        task("samsum", f"task.data={file}").instances()
