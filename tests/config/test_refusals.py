"""Slips of the hand end in one line with key, value and what would do, before anything is loaded."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config import words
from harness.config.build import build_method, build_task
from harness.config.compatibility import MOST_THREADS, check
from harness.config.composition import compose
from harness.config.content import data_digest
from harness.config.knobs import cautions
from harness.config.overrides import parse
from harness.errors import ConfigError, DataError, FieldError
from tasks.settings import MOST_SAMPLES

DRAFTED = "model=tiny_ar model@draft=random_dflash method=dflash"
SLIPS = {
    "modle=tiny_mdm": "modle: no such key; did you mean model?",
    "results=here": "results: no such key; did you mean results_dir?",
    "method.treshold=0.5": "method=llada, which is the default, has no such key; did you mean method.threshold?",
    "method=factor method.threshold=0.5": "method.threshold: method=factor has no such key; known to fast_dllm_v2,",
    "~tracker": "~tracker: nothing can be taken out; give tracker a value, such as none or null",
    "+gen_lenght=8": "+gen_lenght=8: nothing would read a new key; what is there is set without +",
    "++measure.repetition=2": "++measure.repetition=2: nothing would read a new key",
    "model.loader.seed=x model=random_mdm": "model.loader.seed=x: must be a whole number",
    "+model.loader.sed=3": "got an unexpected keyword argument 'sed'",
    "model.loader._target_=subprocess.Popen": "model.loader._target_=subprocess.Popen: missing a required argument",
    "name=${nope}": "name=${nope}: refers to nope, which is not there",
    "results_dir=${nope}/a": "results_dir=${nope}/a: refers to nope",
    "sandbox=none": "sandbox=none: must be safe or unsafe",
    "=5": "=5: is no setting; settings are written key=value",
    "method=null": "method=null: must be the name of a method, such as adablock",
    "task=5": "task=5: must be the name of a task, such as ",
    "method/selector=null": "method/selector=null: must be the name of a selector, such as ",
    "method=threshold ~method.threshold": "~method.threshold: nothing can be taken out",
    "--samples 4": "--samples: no such option; settings are written key=value, as in task.samples=4",
    "--cfg job": "--cfg: no such option",
    "tiny_mdm": "tiny_mdm: is no setting; settings are written key=value",
    "method=thr\u0435shold": "method=thr\u0435shold: no such method; did you mean threshold?",
    'task.lengths="[3,4]"': "task.lengths=[3,4]: must be a list, written [a,b], without quotes around it",
    "task.lengths=3": "task.lengths=3: must be a list, written [a,b]",
    "task.samples=1.5": "task.samples=1.5: must be a whole number",
    "task.samples=1e9": "task.samples=1e9: must be a whole number",
    f"task.samples={MOST_SAMPLES + 1}": f"task.samples={MOST_SAMPLES + 1}: must be at most {MOST_SAMPLES}",
    f"device.threads={MOST_THREADS + 1}": f"must be a whole number from 1 to {MOST_THREADS}",
    "device.threads=true": "device.threads=True: must be a whole number",
    "method=threshold method.threshold=nan": "method.threshold=nan: must be a finite number",
    "method=threshold method.threshold=-5e-1": "method.threshold=-5e-1: must be",
    "method.temperature=0.50 method.scorer.temperature=0.5": "method.temperature=0.50: nothing reads it",
    "method=factor method.factor=inf": "method.factor=inf: must be a finite number",
    "method.temperature=-inf": "method.temperature=-inf: must be a finite number",
    "seed=nan": "seed=nan: must be a whole number",
    "gen_length=inf": "gen_length=inf: must be a whole number",
    f"seed={2**63}": f"seed={2**63}: must lie from -{2**63} to {2**63 - 1}",
    f"batch_size={2**31}": f"batch_size={2**31}: must be at most {2**31 - 1}",
    f"seed={'1' * 5000}": "...",
    f"task.lengths={'[' * 100_000}": "task.lengths: brackets are nested 100000 deep; 32 at most can be read",
    "resume=maybe": "resume=maybe: must be true or false",
    "task.lengths=[3": "task.lengths=[3: cannot be read",
    "hydra/launcher=rq": "hydra/launcher=rq: is not installed; for joblib and slurm: pip install",
    "split=0": "split=0: must be at least 1",
    "model=tiny_ar method=ar_greedy method/acceptor=of_beam": "acceptor=OfBeam: works with method/branching=beam alone",
    "model=tiny_ar method=ar_greedy method/branching=beam": "branching=Beams: works with method/acceptor=of_beam alone",
    "model=tiny_ar method=superposed method/acceptor=greedy": "feed=Superposition: works with method/accept",
    "model=tiny_ar method=swift method.attention=3": "method.attention=3: must be a list of whole numbers, wr",
    "model=tiny_ar method=swift method.tree=null": "method.tree=None: must be a list of whole numbers",
    "model=tiny_ar method=staged_prompting method.stages=3": "method.stages=3: must be a list of texts",
    "model=tiny_moe method=scmoe method.weak_ranks=[x]": "method.weak_ranks=['x']: must be a list of whole numbers",
    "model=tiny_ar method=swift method.threshold=-1": "method.threshold=-1.0: must be at least 0",
    f"model=tiny_ar method=lookahead method.W={10**9}": f"method.W={10**9}: must be from 1 to 4096",
    "model=tiny_ar method=lookahead method.N=1000 method.W=1000": "method.N=1000: must need no more than 4096 tokens",
    f"model=tiny_ar method=beam method.num_beams={10**9}": f"method.num_beams={10**9}: must be from 1 to 4096",
    f"model=tiny_ar method=aded method.iterations={10**9}": f"method.iterations={10**9}: must be from 1 to 100000",
    "model=tiny_ar model@draft=tiny_ar_draft method=speculative method.K=-1": "method.K=-1: must be at least 0, whi",
    f"model=tiny_ar method=prompt_lookup method.num_tokens={10**22}": f"method.num_tokens={10**22}: must lie from",
    "model=tiny_ar method=prompt_lookup method.num_tokens=null": "method.num_tokens=null: must be a whole number",
    "model=tiny_ar method=ar_greedy model.max_length=x": "model.max_length=x: must be a whole number of at least 1",
    "model=tiny_ar method=ar_greedy model.max_length=0": "model.max_length=0: must be a whole number of at least 1",
    "model=tiny_ar method=ar_greedy model.max_length=100": "model.max_length=100: must be 128, the positions",
    "model=tiny_ar method=ar_greedy model.path=/nowhere": "model.path=/nowhere: holds no config.json; name a folder",
    "model=tiny_ar method=budget_forcing": "method=budget_forcing model=tiny_ar: revision: symbol 'Wait' at place 0",
    f"{DRAFTED} draft.loader.reads=[-1]": ("draft.loader.reads=[-1]: must name layers of the target, from 0"),
    f"{DRAFTED} draft.loader.reads=3": "draft.loader.reads=3: must be a list of whole numbers",
    f"{DRAFTED} draft.loader.reads=[x]": "draft.loader.reads=['x']: must be a list of whole numbers",
    f"{DRAFTED} draft.loader.block_size=1": "draft.loader.block_size=1: must be from 2 to 4096",
    f"{DRAFTED} draft.loader.block_size={10**9}": f"draft.loader.block_size={10**9}: must be from 2 to 4096",
    "split=2 measure=timed": "split=2: the seconds of a timed run belong together; leave split out",
}


@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip[:40])
def test_a_slip_is_answered_in_one_line(slip: str):
    """A message of a library, a traceback, or an hour of work that ends in one."""
    with pytest.raises(ConfigError) as refused:
        check(compose(slip.split(" ")))
    assert SLIPS[slip] in str(refused.value)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_words_beyond_ascii_need_no_quotes():
    """A grammar that reads its own alphabet only."""
    (plain, listed, quoted) = parse(["name=h\u00e9 b", "task.names=[\u00e9,b]", "name='\u00e9,b'"])
    assert (plain.value(), listed.value(), quoted.value()) == ("h\u00e9 b", ["\u00e9", "b"], "\u00e9,b")


def test_a_part_tells_its_field_as_data():
    """Words of a message that somebody takes for the name of a key."""
    with pytest.raises(ConfigError) as refused:
        build_method(compose(["method.temperature=-1"]))
    cause = refused.value.__cause__
    assert isinstance(cause, FieldError)
    assert (cause.field, cause.value, cause.must) == ("temperature", -1, "be at least 0")
    assert str(words.refused_field("method.temperature", cause)) == str(refused.value)


@pytest.mark.parametrize("method", ["threshold", "dinfer_threshold", "fast_dllm_v2", "sdar", "dawn", "klass"])
def test_a_probability_that_none_can_reach_is_pointed_out(method: str):
    """One token per call, where a user thinks to have asked for more."""
    model = ["model=tiny_block"] if method in ("fast_dllm_v2", "sdar") else []
    knob = {"dinfer_threshold": "threshold", "dawn": "tau", "klass": "conf_threshold"}.get(method, "threshold")
    plain = compose([*model, f"method={method}"])
    knob = next(name for name in (knob, "tau", "threshold", "confidence") if name in plain.method)
    high = compose([*model, f"method={method}", f"method.{knob}=1.5"])
    assert cautions(plain.method, build_method(plain)) == []
    assert cautions(high.method, build_method(high)) == [
        f"method.{knob}=1.5: no probability is above 1, so only one token per call is decided"
    ]


ROWS = {
    "deep": ('{"items": ' + "[" * 100_000 + "]" * 100_000 + "}", "row 1: not JSON (nested too deeply)"),
    "long": ('{"items": ["A", "B", "C"], "index": ' + "1" * 5000 + "}", "a whole number of thousands of digits"),
}


@pytest.mark.parametrize("fault", ROWS)
@pytest.mark.parametrize("task", ["list_copy", "gsm8k"])
def test_a_row_that_no_program_can_hold_is_named(fault: str, task: str, tmp_path: Path):
    """A file of a stranger's that takes the interpreter to its limits."""
    file = tmp_path / "rows.jsonl"
    file.write_text(ROWS[fault][0] + "\n")
    with pytest.raises(DataError) as refused:
        build_task(compose([f"task={task}", f"task.data={file}"])).instances()
    assert f"{file}, row 1" in str(refused.value) and ROWS[fault][1] in str(refused.value)


def test_a_line_separator_inside_a_text_ends_no_row(tmp_path: Path):
    """Lines as a text editor sees them, where JSON has no line end."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{"items": ["a\u2028b", "c", "d"]}\n', encoding="utf-8")
    task = build_task(compose(["task=list_copy", f"task.data={file}", "task.renderer=chat", "task.template=own-1"]))
    assert len(task.instances()) == 1


def _read_rows(file: Path) -> object:
    return build_task(compose(["task=list_copy", f"task.data={file}"])).instances()


@pytest.mark.parametrize("read", [_read_rows, lambda file: data_digest([file])], ids=["rows", "digest"])
def test_a_pipe_is_no_file(read: Callable[[Path], object], tmp_path: Path):
    """A command that waits for ever for somebody to write."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"pipe: cannot be read \(it is a pipe, not a file\)"):
        read(tmp_path / "pipe")
