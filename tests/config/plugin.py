"""A plug-in in a few lines: one part of every kind, each as little as it can be."""

from pathlib import Path

from harness.results.store import Store

RULE = '''
"""Closes what is sure."""

from my_helper import share

from harness.engine.shared.policy import policy


@policy("method/selector", "mean")
class Mean:
    """Close every open position whose confidence exceeds the row's mean."""

    weight: float = 1.0

    def __call__(self, candidates, open_BL, quota_B, canvas):
        sure_BL = candidates.confidence_BL.masked_fill(~open_BL, 0)
        mean_B1 = sure_BL.sum(1, keepdim=True) / open_BL.sum(1, keepdim=True).clamp(min=1)
        return open_BL & (sure_BL > share() * self.weight * mean_B1)
'''

TASK = '''
"""Asks for nothing in particular."""

from dataclasses import dataclass

from tasks.task import Grading, Sample, Score


@dataclass(frozen=True, kw_only=True)
class Echo:
    """Ask for a list as it is; whatever is not empty is right."""

    name: str
    summary: str = ""
    samples: int = 2
    gen_length: int = 8
    template: str = "plain"
    renderer: str = "tiny"
    max_items: int = 10
    templates = ("plain",)

    def sources(self):
        return []

    def instances(self):
        prompt = "<bos> copy - - <arg> A B C <sep>"
        return [Sample(id=str(number), prompt=prompt, instance=number) for number in range(self.samples)]

    def score(self, sample, text):
        return Score(correct=bool(text))

    def grading(self):
        return Grading()

    def max_target_tokens(self, tokenizer):
        return 1
'''

MODEL = '''
"""Loads untrained weights."""

from harness.models import random


def load(*, name, kind, layers=1, max_length=64, dtype, device):
    return random.load(name=name, kind=kind, layers=layers, max_length=max_length, dtype=dtype, device=device)
'''

FILES = {
    "my_rule.py": RULE,
    "my_helper.py": "def share():\n    return 1.0\n",
    "my_task.py": TASK,
    "my_model.py": MODEL,
    "conf/method/mean.yaml": """
defaults: [window: blocks, scorer: confidence, selector: mean, _self_]
family: diffusion
summary: Close what is surer than the mean.
models: [masked_diffusion, block_diffusion]
block_length: 8
weight: 1.0
window: {length: "${..block_length}"}
selector: {weight: "${..weight}"}
""",
    "conf/method/slow_mean.yaml": """
defaults: [mean, _self_]
summary: The same, slowly.
weight: 2.0
""",
    "conf/task/echo.yaml": """
_target_: my_task.Echo
summary: Say it again.
samples: 2
gen_length: 8
renderer: tiny
max_items: 10
""",
    "conf/model/thin.yaml": """
kind: masked_diffusion
summary: One layer.
loader: {_target_: my_model.load, kind: "${..kind}", max_length: "${..max_length}"}
tokenizer: symbols
max_length: 64
max_items: 10
""",
    "conf/protocol/mine.yaml": """
summary: Mine.
tasks:
  gsm8k: {template: own-1, turns: many, shots: 0, stop: [], reading: own, gen_length: 64}
""",
    "conf/experiment/means.yaml": """
# @package _global_
name: means
points: [method=mean, method=slow_mean]
""",
}


def write(folder: Path, **others: str) -> Path:
    """Write the plug-in into a folder; `others` are further files, or other texts of its own, `__` standing for `/`."""
    for name, text in {**FILES, **{name.replace("__", "/"): text for name, text in others.items()}}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def stored(folder: Path) -> list[dict]:
    """Return the rows of the runs table."""
    return Store(root=folder).read("runs").to_pylist()
