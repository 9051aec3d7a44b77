"""The experiments that reproduce published tables: composed in full here, run where the weights are."""

import re
import shlex
from pathlib import Path

import pytest

from harness.commands.bench import options
from harness.config.catalogue import names
from harness.config.compatibility import check
from harness.config.composition import compose
from harness.errors import ConfigError
from harness.runs.runner import run
from harness.runs.sweep import expand
from tests.models.public import miniature
from tests.models.public.miniature import KINDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text()
TABLES = [name for name in names("experiment") if name.startswith("paper_") and name != "paper_smoke"]
COMMANDS = [shlex.split(line) for line in re.findall(r"`(decbench run -m experiment=paper_(?!smoke).*?)`", PAGE)]
# Method, block, steps and answer length of one point of each, as the papers' scripts have them.
POINTS = {
    "paper_llada": ["model=llada_1_5", "task=gsm8k", "llada", 16, None, 256],
    "paper_dream": ["model=dream_7b_instruct", "task=mbpp", "dream", None, None, 1024],
    "paper_fast_dllm": ["method/cache=prefix", "gen_length=512", "llada", 32, None, 512],
    "paper_dparallel": ["method.steps=64", "task=mbpp", "llada", 32, 64, 256],
}


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look into an empty hub cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_every_table_has_its_command() -> None:
    """Guards the table of the page on models, in both directions."""
    assert sorted(words[-1].removeprefix("experiment=") for words in COMMANDS) == TABLES == sorted(POINTS)


@pytest.mark.parametrize("name", TABLES)
def test_every_point_lacks_nothing_but_the_weights(name: str) -> None:
    """Guards hours on somebody's GPU: a knob, a task or a protocol that a point cannot have."""
    composed = [(job, compose(job)) for job in expand([f"experiment={name}"]).jobs]
    for _, cfg in composed:
        assert (cfg.device.dtype, cfg.protocol.name != "own", cfg.task.samples) == ("bfloat16", True, None)
        with pytest.raises(ConfigError, match="get it with `hf download"):
            check(cfg)
    assert len({str((cfg.model, cfg.method, cfg.task, cfg.gen_length)) for _, cfg in composed}) == len(composed)
    one, other, *expected = POINTS[name]
    cfg = next(cfg for job, cfg in composed if one in [*job, f"model={cfg.model.name}"] and other in job)
    assert [cfg.method.name, cfg.method.get("block_length"), cfg.method.steps, cfg.gen_length] == expected


def test_a_point_runs_on_a_miniature(tmp_path: Path, results_dir: Path) -> None:
    """Guards the rest of the way of a point, from the protocol's prompt to the stored verdict."""
    kind = KINDS["dream"]
    miniature.write(tmp_path / "mini", kind)
    short = ["device=cpu", "gen_length=8", "task.samples=1", f"model.path={tmp_path / 'mini'}", "batch_size=1"]
    job = expand(["experiment=paper_dream", *short]).jobs[0]
    assert run(compose([*job, f"results_dir={results_dir}"])).status == "ok"


def test_the_commands_of_the_bench_can_be_read() -> None:
    """Guards the other commands of the page on models that a machine without a GPU does not execute."""
    lines = re.findall(r"^decbench bench(?! --).*$", PAGE, re.MULTILINE)
    assert [options(shlex.split(line, comments=True)[2:]).shrink for line in lines] == [1, 28]
