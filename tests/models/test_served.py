"""A served model: asked as the protocol says, its answers graded, its counts null, one line for whatever it does."""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.commands.generate import main as generate
from harness.config.composition import compose
from harness.config.job import resolve
from harness.errors import ConfigError, DataError
from harness.models import service
from harness.models.pool import LoadedModel
from harness.models.served import UNSEEN, load_served
from harness.results.schemas import COUNTERS
from harness.results.store import Store
from harness.runs.runner import run
from tests.conftest import RunDecbench

LISTS = ["task=list_sort", "task.renderer=chat", "task.template=own-1", "task.samples=4", "gen_length=32"]
USAGE = {"prompt_tokens": 40, "completion_tokens": 7, "total_tokens": 47}


def chat(text: str | None, **more: object) -> dict[str, Any]:
    """Write an answer as servers do."""
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        **more,
    }


@dataclass
class StandIn:
    """A server on this machine: answers `replies` in turn, the last one for ever, and keeps what it was asked.

    A reply is a status, headers and a body: JSON, or bytes as they are.
    """

    url: str = ""
    replies: list[tuple[int, Mapping[str, str], object]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    together: threading.Barrier | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, *bodies: object, status: int = 200, **headers: str) -> None:
        """Answer with these bodies from now on."""
        self.replies = [(status, headers, body) for body in bodies]

    def next(self, path: str, key: str | None, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Return the answer to a request."""
        with self.lock:
            self.paths.append(path)
            self.keys.append(key)
            self.asked.append(json.loads(body) if body else {})
            status, headers, said = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if self.together is not None:
            self.together.wait(5)
        return status, headers, said if isinstance(said, bytes) else json.dumps(said).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve on a free port of this machine; waits between tries take no time."""
    monkeypatch.setattr(service.time, "sleep", lambda seconds: None)
    here = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = here.next(self.path, self.headers.get("Authorization"), sent)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    monkeypatch.setattr(listening, "handle_error", lambda *about: None)
    here.url = f"http://127.0.0.1:{listening.server_port}"
    threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
    yield here
    listening.shutdown()
    listening.server_close()


def served(server: StandIn, **changes: Any) -> LoadedModel:
    """Load the model behind the stand-in."""
    return load_served(**{"name": "served", "url": server.url, "served_name": "mine", "retries": 0} | changes)


def ask(loaded: LoadedModel, *prompts: Any) -> list[str]:
    """Return the texts of the answers."""
    ids = [loaded.tokenizer.encode_prompt(prompt) for prompt in prompts]
    made = loaded.model.sample(ids, gen_length=8, seeds=range(len(ids)), settings={}, called=None)  # type: ignore[attr-defined]
    return [loaded.tokenizer.decode(one.tokens) for one in made]


def rows(folder: Path) -> list[dict[str, Any]]:
    return Store(root=folder).read("samples").to_pylist()


def test_a_run_has_answers_and_time_and_no_counts(server: StandIn, call_decbench: RunDecbench, tmp_path: Path):
    """Guards the whole street: prompts out, texts graded, tokens from usage, and null, never 0, for the unseen."""
    server.reply(chat("[A, B]", usage=USAGE))
    command = [
        "run",
        "model=served",
        f"model.url={server.url}",
        "model.served_name=mine",
        *LISTS,
        "results_dir=r",
        "seed=3",
    ]
    done = call_decbench(*command, "measure=timed", "name=mine", "--json")
    assert done.returncode == 0, done.stderr
    assert "NaN" not in done.stdout and "no figure: no run has what it shows" in done.stderr
    (overall,) = json.loads(done.stdout.splitlines()[-1])["summary"]["overall"]
    assert (overall["nfe"], overall["tpf"], overall["efe"]) == (None, None, None) and overall["latency_s"] > 0
    for row in rows(tmp_path / "r"):
        known = {"tokens_out": 7, "tokens_canvas": 32}
        assert {name: row[name] for name in COUNTERS} == dict.fromkeys(COUNTERS) | known
        assert (row["prompt_tokens"], row["output_text"], row["finish_reason"]) == (40, "[A, B]", "stop")
        assert (row["output_ids"], row["decided_at"], row["ttft_s"], row["unseen"]) == (None, None, None, list(UNSEEN))
        assert row["correct"] is False and row["latency_s"] > 0
    made = Store(root=tmp_path / "r").read("runs").to_pylist()[0]
    assert (made["nfe"], made["tpf"], made["query_tokens"], made["peak_memory_bytes"]) == (None, None, None, None)
    assert made["tps"] > 0 and made["device"] == f"mine at {server.url}/v1"
    body = server.asked[-1]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("mine", 32, 0)
    assert body["messages"][-1]["role"] == "user" and set(server.paths) == {"/v1/chat/completions"}
    assert body["seed"] == rows(tmp_path / "r")[-1]["seed"] % 2**31


def test_without_usage_no_token_is_counted(server: StandIn, tmp_path: Path):
    """Guards against counting characters, and against a speed made of nothing."""
    server.reply(chat("[A, B]"))
    record = run(
        compose(
            [
                "model=served",
                f"model.url={server.url}",
                "model.served_name=m",
                *LISTS,
                f"results_dir={tmp_path}",
                "measure=timed",
            ]
        )
    )
    assert (record.row["tokens_out"], record.row["tps"], record.row["efe"]) == (None, None, None)
    assert {row["prompt_tokens"] for row in rows(tmp_path)} == {None}


def test_a_batch_is_asked_at_the_same_time(server: StandIn, tmp_path: Path):
    """Guards concurrency: four requests wait for each other, and answers keep the order of their prompts."""
    server.reply(chat("x"))
    server.together = threading.Barrier(4)
    loaded = served(server)
    assert ask(loaded, "a", "b", "c", "d") == ["x"] * 4
    assert {body["messages"][0]["content"] for body in server.asked} == {"a", "b", "c", "d"}
    run(
        compose(
            [
                "model=served",
                f"model.url={server.url}",
                "model.served_name=m",
                *LISTS,
                f"results_dir={tmp_path}",
                "batch_size=4",
            ]
        )
    )
    assert len(rows(tmp_path)) == 4


USER, BEGUN = {"role": "user", "content": "q"}, {"role": "assistant", "content": "The"}
FORMS = [
    ("chat", "é\n", {"messages": [{"role": "user", "content": "é\n"}]}),
    ("chat", [USER], {"messages": [USER]}),
    (
        "chat",
        [USER, BEGUN],
        {"messages": [USER, BEGUN], "continue_final_message": True, "add_generation_prompt": False},
    ),
    ("chat", [USER, BEGUN, BEGUN | {"content": ""}], {"messages": [USER, BEGUN]}),
    ("completions", "é\n", {"prompt": "é\n"}),
]


@pytest.mark.parametrize(("api", "prompt", "expected"), FORMS)
def test_prompts_are_asked_as_the_protocol_says(server: StandIn, api: str, prompt: Any, expected: dict[str, Any]):
    """Guards text, turns, and answers that are begun."""
    server.reply(chat("ü") if api == "chat" else {"choices": [{"text": "ü"}]})
    loaded = served(server, api=api, kwargs={"temperature": 0.7, "top_k": 5})
    assert ask(loaded, prompt) == ["ü"]
    assert server.asked == [{"model": "mine", "max_tokens": 8, "seed": 0, "temperature": 0.7, "top_k": 5, **expected}]
    assert server.paths == ["/v1/chat/completions" if api == "chat" else "/v1/completions"]


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/v1/completions", "/v1/chat/completions"])
def test_addresses_are_understood_as_people_write_them(server: StandIn, suffix: str):
    """Guards against /v1/v1, and finds the only model of a server."""
    server.reply({"data": [{"id": "alone"}]}, chat("x"))
    assert ask(served(server, url=server.url + suffix, served_name=None), "a") == ["x"]
    assert server.paths == ["/v1/models", "/v1/chat/completions"] and server.asked[1]["model"] == "alone"


def test_the_key_is_sent_and_never_told(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, call_decbench: RunDecbench, tmp_path: Path
):
    """Guards the one secret there is: in no file, no message and no id."""
    monkeypatch.setenv("MY_KEY", "sk-secret")
    server.reply({"error": {"message": "bad key sk-secret"}}, status=401)
    command = ["run", "model=served", f"model.url={server.url}", "model.served_name=m", "model.key_env=MY_KEY", *LISTS]
    refused = call_decbench(*command, "results_dir=r")
    assert set(server.keys) == {"Bearer sk-secret"} and refused.returncode == 1
    assert "answered 401 Unauthorized: bad key ***; name the environment variable" in refused.stderr
    server.reply(chat("x"))
    assert call_decbench(*command, "results_dir=r").returncode == 0
    assert not any(b"sk-secret" in file.read_bytes() for file in (tmp_path / "r").rglob("*") if file.is_file())
    names = {resolve(compose([*command[1:], f"model.{more}"])).run_id for more in ("retries=1", "timeout_s=9")}
    assert names == {resolve(compose([*command[1:]])).run_id}


@pytest.mark.parametrize(
    ("reply", "status", "message"),
    [
        ({"error": {"message": "too\nlong"}}, 400, "answered 400 Bad Request: too long"),
        ({"object": "error", "message": "no mine"}, 404, "answered 404 Not Found: no mine; compare model.url"),
        ({"detail": "Not Found"}, 404, "Not Found; compare model.url, model.api and model.served_name"),
        (b"<html>", 502, "answered 502 Bad Gateway: <html> (3 tries)"),
        (b"", 503, "answered 503 Service Unavailable:  (3 tries)"),
        (b"{", 200, "answered no JSON object but '{'"),
        (b"[" * 10**5, 200, "answered no JSON object but '[["),
        (b"\xff", 200, "answered no JSON object"),
        ([], 200, "answered no JSON object but '[]'"),
        ({}, 200, "answered without choices[0].message.content; try another model.api"),
        ({"choices": [{"text": "x"}]}, 200, "answered without choices[0].message.content"),
        ({"choices": [{"message": {"content": 3}}]}, 200, "answered without choices[0].message.content"),
        ({"choices": [3]}, 200, "answered without choices[0].message.content"),
    ],
)
def test_whatever_a_server_answers_is_one_line(server: StandIn, reply: object, status: int, message: str):
    """Guards tracebacks as the answer to somebody else's fault, and tries without end."""
    server.reply(reply, status=status)
    with pytest.raises(DataError) as refused:
        ask(served(server, retries=2), "a")
    assert str(refused.value).startswith(f"model.url={server.url}/v1: ") and message in str(refused.value)
    assert "\n" not in str(refused.value) and len(server.paths) == (3 if status > 500 else 1)


def test_a_busy_server_is_asked_again(server: StandIn, monkeypatch: pytest.MonkeyPatch):
    """Guards retries: after a wait that grows or is as long as the server says, and no longer than half a minute."""
    waits: list[float] = []
    monkeypatch.setattr(service.time, "sleep", waits.append)
    busy = (429, {"Retry_After": "7"}, {})
    server.replies = [busy, (500, {}, {}), (503, {"Retry_After": "900"}, {}), (200, {}, chat(None))]
    assert ask(served(server, retries=3), "a") == [""]
    assert waits == [7.0, 1.0, 30.0]


def test_a_redirect_is_named_and_not_followed(server: StandIn):
    """Guards the key against another host."""
    server.reply({}, status=307, Location="http://elsewhere/v1")
    with pytest.raises(DataError, match="redirects to http://elsewhere/v1; give that address"):
        ask(served(server), "a")


def test_a_server_that_is_not_there_or_silent_is_named(server: StandIn):
    """Guards connections that are refused, hang, or end early."""
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9/v1: refused the connection; start the server"):
        ask(served(server, url="http://127.0.0.1:9"), "a")
    server.reply(chat("x"))
    server.together = threading.Barrier(9)
    with pytest.raises(DataError, match=r"no answer in 0\.05 s; .* raise model\.timeout_s \(2 tries\)"):
        ask(served(server, timeout_s=0.05, retries=1), "a")
    server.together.abort()


REFUSED = {
    "model.url=null": "model.url=null: is no address; write http://localhost:8000",
    "model.url=localhost:8000": "model.url=localhost:8000: is no address",
    "model.url=ftp://host": "model.url=ftp://host: is no address",
    "model.url='http://host:port'": "model.url=http://host:port: is no address",
    "model.url='http://host:99999999'": "is no address",
    "model.url='http://a b'": "model.url=http://a b: is no address",
    "model.url='http://me:word@host'": "model.url: holds a password, which would be stored; use model.key_env=NAME",
    "model.url='http://host/v1?key=3'": "ends in a query",
    "model.key_env=sk-secret": "model.key_env: no environment variable of that name",
    "model.key_env=NO_SUCH_KEY": "model.key_env: no environment variable of that name",
    "model.key_env=EMPTY_KEY": "model.key_env=EMPTY_KEY: what the variable holds is no key",
    "model.key_env=TWO_LINES": "model.key_env=TWO_LINES: what the variable holds is no key",
    "model.api=embeddings": "model.api=embeddings: must be one of chat, completions",
    "model.retries=-1": "model.retries=-1: must be from 0 to 10",
    "model.timeout_s=0": "model.timeout_s=0: must be above 0 seconds",
    "model.kwargs.stream=true": "model.kwargs.stream: is decided by the run",
    "task.renderer=tiny": "task.renderer=tiny: model=served reads text",
    "method=llada": "method=llada: does not run on model=served",
}


@pytest.mark.parametrize("override", REFUSED)
def test_settings_that_cannot_be_are_refused_before_anything_is_asked(override: str, monkeypatch: pytest.MonkeyPatch):
    """Guards one line with key, value and what would do, and a key that was given in place of its name."""
    monkeypatch.setitem(os.environ, "EMPTY_KEY", " ")
    monkeypatch.setitem(os.environ, "TWO_LINES", "a\nb")
    with pytest.raises(ConfigError) as refused:
        resolve(compose(["model=served", "model.url=http://127.0.0.1:9", *LISTS, override]))
    assert REFUSED[override] in str(refused.value)
    assert "secret" not in str(refused.value) and "word" not in str(refused.value).replace("password", "")


def test_one_prompt_is_answered_without_counts(server: StandIn, capsys: pytest.CaptureFixture[str]):
    """Guards the command for one's own prompt where there is neither a tokenizer nor a call to show."""
    server.reply(chat("Hello [you]", usage=USAGE))
    generate(["Hi", "model=served", f"model.url={server.url}", "model.served_name=mine", "trace=true"])
    assert capsys.readouterr().out.splitlines() == [
        "Hello [you]",
        "calls: -   query tokens: -   tokens: 7   tokens per call: -",
        f"not seen: {', '.join(UNSEEN)}",
    ]
    assert server.asked[0]["messages"] == [{"role": "user", "content": "Hi"}] and server.asked[0]["max_tokens"] == 256


def test_a_choice_of_models_is_put_to_the_user(server: StandIn):
    """Guards against a model that nobody chose, and turns where a text is due."""
    server.reply({"data": [{"id": "a"}, {"id": "b"}]})
    with pytest.raises(ConfigError, match=r"model\.served_name=null: the server offers a, b; choose one"):
        served(server, served_name=None)
    with pytest.raises(DataError, match=r"model\.api=completions: takes a text and no turns; use model\.api=chat, or"):
        served(server, api="completions").tokenizer.encode_prompt([USER])
