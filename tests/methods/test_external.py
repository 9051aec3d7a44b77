"""Somebody else's generate(): counted from outside like ours, and refused in one line where it is none."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.commands.conform import main as conform
from harness.config.composition import compose
from harness.config.job import resolve
from harness.errors import ConfigError, DataError
from harness.models.external import UNSEEN
from harness.references import find, module_of
from harness.results.store import Store
from harness.runs.runner import run
from tests.models.test_hf_causal import write

SAME = ("output_ids", "output_text", "correct", "tokens_out", "tokens_canvas", "prompt_tokens", "finish_reason")
COUNTED = ("nfe", "nfe_prefill", "nfe_total", "query_tokens")
UNKNOWN = ("nfe_idle", "nfe_cache", "nfe_draft", "layer_tokens", "tokens_generated", "forced", "remasked", "decided_at")
MASKED = ["model=external", "model.target=tests.models.third_party:masked_diffusion", "model.tokenizer=symbols"]
FIVE = ["task=list_sort", "task.samples=4", "task.lengths=[5]"]
NETWORK = "import torch\nnet = torch.nn.Embedding(128, 4)\n"
WHOLE = "def generate(prompts, gen_length, seeds):\n    net(torch.tensor(prompts))\n    return [[3] for _ in prompts]\n"

Write = Callable[..., str]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Write:
    """Write a module of a user's own into the folder of the command, and return its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write_module(text: str, name: str = re.sub(r"\W", "_", f"own_{request.node.name}")) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write_module


def samples(store: Path, *overrides: str) -> list[dict[str, Any]]:
    """Run and return the rows of the samples table."""
    assert run(compose([*overrides, f"results_dir={store}"])).status == "ok"
    return Store(root=store).read("samples").to_pylist()


def equal(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Compare answers and all that hooks can count."""
    assert len(ours) == len(theirs) > 1 and any(row["nfe"] > 1 for row in ours)
    for mine, other in zip(ours, theirs, strict=True):
        assert {name: mine[name] for name in (*SAME, *COUNTED)} == {name: other[name] for name in (*SAME, *COUNTED)}
        assert (mine["unseen"], other["unseen"]) == ([], list(UNSEEN))
        assert {other[name] for name in UNKNOWN} == {None}


def test_the_generate_of_transformers_counts_as_our_loop_does(tmp_path: Path):
    """Guards the prompt's call, the positions behind a cache and the end of an answer, through the whole street."""
    write(tmp_path / "llama")
    task = [
        "task=list_sort",
        "task.renderer=chat",
        "task.template=own-1",
        "task.samples=3",
        f"model.path={tmp_path}/llama",
        "model.max_length=256",
        "gen_length=12",
    ]
    ours = samples(tmp_path / "ours", "model=hf_causal", "method=ar_greedy", *task)
    target = "model.target=tests.models.third_party:causal"
    theirs = ["model=external", target, "model.load=tests.models.third_party:load_causal", "method=external", *task]
    equal(ours, samples(tmp_path / "theirs", *theirs))


@pytest.mark.parametrize(
    ("rows", "knobs"),
    [
        (1, {}),
        (2, {"block_length": 8, "steps": 8}),
        (1, {"cfg_scale": 0.5, "steps": 4}),
        (4, {"cfg_scale": 0.5, "block_length": 4, "steps": 8}),
    ],
)
def test_a_masked_sampler_counts_as_our_loop_does(tmp_path: Path, rows: int, knobs: dict[str, float]):
    """Guards batches, rows that guidance puts beside each other, and arguments that do not arrive."""
    asked = [*FIVE, f"batch_size={rows}"]
    ours = ["model=random_mdm", "method=llada", *(f"method.{key}={value}" for key, value in knobs.items())]
    theirs = [*MASKED, "model.module=MASKED", *(f"model.kwargs.{key}={value}" for key, value in knobs.items())]
    equal(samples(tmp_path / "ours", *ours, *asked), samples(tmp_path / "theirs", *theirs, *asked))


@pytest.mark.parametrize(
    "module", ["MASKED", "tests.models.third_party.MASKED", "tests.models.third_party:MASKED", "MASKED.blocks.0"]
)
def test_a_module_is_found_by_its_path(module: str, tmp_path: Path):
    """Guards every way of writing where it is; a part of it sees embeddings instead of ids."""
    (row, *_) = samples(tmp_path, *MASKED, f"model.module={module}", *FIVE, "model.kwargs.steps=4")
    assert (row["nfe"], row["query_tokens"]) == (4, 4 * (row["prompt_tokens"] + 16))


def test_what_a_model_is_told_stands_where_knobs_do(tmp_path: Path):
    """Guards tables against one line for two settings, and the decoder that is meant where none is named."""
    record = run(compose([*MASKED, "model.module=MASKED", "+model.kwargs.steps=2", *FIVE, f"results_dir={tmp_path}"]))
    assert (record.row["setting"], record.row["method"]) == ("external steps=2", "external")
    assert (record.row["nfe"], record.row["nfe_idle"], record.row["tpf"] > 0) == (2.0, None, True)


def test_rows_that_cannot_be_told_apart_are_not_counted(own: Write, tmp_path: Path):
    """Guards against work charged to a sample that nobody knows it was for."""
    name = own(NETWORK + WHOLE.replace("net(torch.tensor(prompts))", "net(torch.tensor(prompts[:1]))"))
    external = ["model=external", f"model.target={name}:generate", "model.module=net", "model.tokenizer=symbols"]
    alone = samples(tmp_path / "alone", *external, *FIVE)
    together = samples(tmp_path / "together", *external, *FIVE, "batch_size=4")
    assert {row["nfe"] for row in alone} == {1}
    assert {row[name] for row in together for name in COUNTED} == {None}
    row = run(compose([*external, *FIVE, "batch_size=4", f"results_dir={tmp_path}"])).row
    assert (row["efe"], row["tpf"], row["nfe"]) == (None, None, None)


def test_draws_come_from_the_seed_and_leave_other_draws_alone(own: Write, tmp_path: Path):
    """Guards repeatable answers of code that draws from torch's global generator, and everybody else's draws."""
    name = own(NETWORK + WHOLE.replace("[3]", "torch.randint(128, (4,)).tolist()"))
    external = ["model=external", f"model.target={name}:generate", "model.module=net", "model.tokenizer=symbols", *FIVE]
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first = [row["output_ids"] for row in samples(tmp_path / "first", *external)]
    assert torch.equal(torch.rand(2), expected)
    assert first == [row["output_ids"] for row in samples(tmp_path / "second", *external)]
    assert len({tuple(ids) for ids in first}) == 4


BROKEN = {
    "raises": ("{}[9]", "raised KeyError: 9 (own_"),
    "exits": ("exit()", "raised SystemExit"),
    "nothing": ("None", "returned NoneType; 1 lists of token ids, one per prompt, are due"),
    "count": ("[[3], [3]]", "returned 2 answers; 1 lists"),
    "tensor": (
        "[torch.tensor([3])]",
        "answer 1 of 1 is of type Tensor; return a list of ids, of a tensor its tolist()",
    ),
    "float": ("[[3, 4.0]]", "answer 1 of 1 holds 4.0 at place 1; return ids as int"),
    "bool": ("[[True]]", "holds True at place 0"),
    "prompt": (
        "[prompts[0] + [3] * gen_length]",
        "tokens, gen_length=16; return the response alone, without the prompt",
    ),
    "vocabulary": ("[[3, 128]]", "holds id 128 at place 1; the vocabulary has ids from 0 to 127"),
    "negative": ("[[-1]]", "holds id -1 at place 0"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_function_that_breaks_its_word_is_named(own: Write, what: str, results_dir: Path):
    """Guards the one line for whatever somebody else's code does."""
    returned, message = BROKEN[what]
    name = own(NETWORK + WHOLE.replace("[[3] for _ in prompts]", returned))
    external = [f"model.target={name}:generate", "model.module=net", "model.tokenizer=symbols"]
    with pytest.raises(DataError) as refused:
        run(compose(["model=external", *external, *FIVE, f"results_dir={results_dir}"]))
    assert str(refused.value).startswith(f"model.target={name}:generate: ") and message in str(refused.value)
    assert "\n" not in str(refused.value)


CALLED = "net(torch.tensor(prompts))"
REFUSED = {
    "model.target=null": "model.target=null: name code as package.module:name",
    "model.target=own": "model.target=own: name code as package.module:name",
    "model.target=no_such_package:generate": "model.target=no_such_package:generate: no module no_such_package here",
    "model.target=NAME:generat": "NAME has no generat; did you mean generate?",
    "model.target=NAME:net.weight": "model.target=NAME:net.weight: is of type Parameter; name a function",
    "model.module=null": "model.module=null: name the nn.Module whose forward does the work",
    "model.module=nett": "model.module=nett: neither in NAME nor a module; write mine.MODEL",
    "model.module=NAME.nett": "model.module=NAME.nett: importing NAME.nett raised ModuleNotFoundError",
    "model.module=net.wait": "model.module=net.wait: Embedding has no wait; did you mean",
    "model.module=torch.nn.Linear": "model.module=torch.nn.Linear: is the class Linear; name an object",
    "model.module=other": "did not call model.module; name the module whose forward does the work",
    "model.module=wordless": "model.module: is called without ids or embeddings",
    "model.load=NAME:none": "model.module=null: is of type NoneType; name an object that is a torch.nn.Module",
    "model.load=NAME:three": "model.load=NAME:three: returned 3 things; return a module, or (module, tokenizer)",
    "model.load=NAME:fails": "model.load=NAME:fails: raised OSError: disk",
    "model.kwargs.steps=8": "prompts, gen_length, seeds and model.kwargs, but: got an unexpected keyword argument",
    "model.tokenizer=words": "model.tokenizer=words: must be one of text, symbols",
    "model.tokenizer=text": "model.tokenizer=text: name the checkpoint's folder by model.path",
    "model.path=nowhere": "model.path=nowhere: no such file or folder",
    "device.dtype=float64": "the weights of model.module=net are float32; say device.dtype=float32",
    "method=threshold": "method=threshold: does not run on model=external",
}
MORE = """
other = torch.nn.Embedding(128, 4)
class Wordless(torch.nn.Module):
    def forward(self, text): return text
wordless = Wordless()
def none(): return None
def three(): return 1, 2, 3
def fails(): raise OSError("disk")
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def generate(): ...\n", "has no generat; did you mean generate?"),
        ("if True:\n    from os import path as generate\n", "has no generat; did you mean generate?"),
        ("from os import path as generat\n", None),
        ("class Of:\n    generat = 1\n", "has no generat"),
        ("generate, (generat, other) = 1, (2, 3)\n", None),
        ("globals()['generat'] = print\n", None),
        ("def __getattr__(name): return print\n", None),
        ("from os import *\n", None),
        ("def (\n", None),
    ],
)
def test_a_name_that_a_module_lacks_is_told_without_importing_it(own: Write, text: str, told: str | None):
    """Guards the hundredth job of a sweep, whose function is misspelt, and modules that only importing tells about."""
    name = own(f"raise_if_imported = 1 / 0\n{text}" if told else text)
    if told is None:
        assert module_of("model.target", f"{name}:generat") == name
        return
    with pytest.raises(ConfigError, match=rf"^model.target={name}:generat: {name} {re.escape(told)}"):
        module_of("model.target", f"{name}:generat")


@pytest.mark.parametrize("override", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(own: Write, override: str, results_dir: Path):
    """Guards key, value and what would do, for everything that names code."""
    name = own(NETWORK + MORE + WHOLE.replace(CALLED, f"{CALLED}; wordless('a')"))
    given = {"model.target": f"{name}:generate", "model.module": "net", "model.tokenizer": "symbols"}
    given |= dict([override.replace("NAME", name).split("=")])
    if "model.load" in given:
        given["model.module"] = "null"
    if "tokenizer=text" in override:
        given |= {"task.renderer": "chat", "task.template": "own-1"}
    overrides = ["model=external", *FIVE, *(f"{key}={value}" for key, value in given.items())]
    with pytest.raises((ConfigError, DataError)) as refused:
        run(compose([*overrides, f"results_dir={results_dir}"]))
    assert REFUSED[override].replace("NAME", name) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("override", ["model.module=null", "model.tokenizer=words", "model.target=own"])
def test_what_needs_no_import_is_refused_by_the_plan(own: Write, override: str):
    """Guards a sweep against starting, and storing a failed run, where one look shows that it cannot go on."""
    given = {"model.target": f"{own(NETWORK + WHOLE)}:generate", "model.module": "net", "model.tokenizer": "symbols"}
    given |= dict([override.split("=")])
    with pytest.raises(ConfigError, match=REFUSED[override]):
        resolve(compose(["model=external", *FIVE, *(f"{key}={value}" for key, value in given.items())]))


def test_code_and_checkpoint_of_somebody_else_make_another_run(own: Write, tmp_path: Path):
    """Guards resume: the target, what it imports beside itself, and the weights are what produced the numbers."""
    helper = own("VALUE = 3\n", "own_helper")
    name = own(f"from {helper} import VALUE\n" + NETWORK + WHOLE)
    weights = tmp_path / "weights"
    weights.mkdir()
    overrides = [
        "model=external",
        f"model.target={name}:generate",
        "model.module=net",
        "model.tokenizer=symbols",
        *FIVE,
    ]

    def ids(*more: str) -> tuple[str, str]:
        job = resolve(compose([*overrides, f"model.path={weights}", *more]))
        return job.setting_id, job.run_id

    first = ids()
    own("VALUE = 4\n", helper)
    second = ids()
    own(f"from {helper} import VALUE\n" + NETWORK + WHOLE + "# a remark\n")
    assert ids() == second
    own(f"from {helper} import VALUE\n" + NETWORK + WHOLE + "MORE = 1\n")
    third = ids()
    (weights / "model.pt").write_bytes(b"1")
    fourth = ids()
    assert first[0] == second[0] == third[0] != fourth[0] != ids("model.kwargs.a=1")[0]
    assert len({first[1], second[1], third[1], fourth[1]}) == 4


def test_importing_code_that_fails_is_one_line(own: Write):
    """Guards scripts that were never meant to be imported."""
    name = own("import sys\na = print\nsys.exit('usage: run me')\n")
    with pytest.raises(
        ConfigError, match=rf"^model\.target={name}:a: importing {name} raised SystemExit: usage: run me"
    ):
        find("model.target", f"{name}:a")


def replayed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Replay the trajectories by code of somebody else."""
    conform([*arguments, "model=external", "--json"])
    return json.loads(capsys.readouterr().out)


def test_the_original_is_replayed_on_the_same_file(capsys: pytest.CaptureFixture[str]):
    """Guards a port against its original: both give the ids, calls and rows of the same trajectories."""
    target = "model.target=tests.models.third_party:masked_diffusion"
    report = replayed(capsys, target, "method=llada")
    assert report["summary"] == {"passed": 18, "failed": 0, "not built": 0}
    assert {case["detail"] for case in report["cases"]} == {"commit_step: not compared"}
    other = replayed(capsys, target, "method=llada", "model.kwargs.steps=1")
    assert other["summary"]["passed"] == 0 and "ids: expected" in other["cases"][0]["detail"]
    assert (
        "unexpected keyword argument 'threshold'" in replayed(capsys, target, "method=threshold")["cases"][0]["detail"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["method=lada", "model.target=tests.models.third_party:causal"],
            "method=lada: no such case; did you mean llada",
        ),
        (["model.target=tests.models.third_party:causal"], "model.target=.* method=NAME"),
        (["method=llada", "task=list_sort"], "to replay the cases of a method by a function"),
        (["method=llada", "model.target=tests.models.third_party:nothing"], "has no nothing"),
    ],
)
def test_a_replay_that_cannot_be_is_refused(arguments: list[str], message: str):
    """Guards against replaying something else than was asked for."""
    with pytest.raises(ConfigError, match=message):
        conform([*arguments, "model=external"])
