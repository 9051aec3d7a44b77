"""Tasks of lm-evaluation-harness in a folder: a YAML file and JSON lines beside it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config.build import build_task
from harness.config.composition import compose

WORDS = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(5)]
LAST_NUMBER = {
    "filter_list": [
        {"name": "whole", "filter": [{"function": "take_first"}]},
        {
            "name": "number",
            "filter": [
                {"function": "regex", "regex_pattern": "(\\d+)", "group_select": -1},
                {"function": "take_first"},
            ],
        },
    ]
}


def write(folder: Path, name: str, splits: Mapping[str, Sequence[Mapping[str, Any]]], **changes: Any) -> Path:
    """Write a task that asks `question` and compares with `answer`; return its folder."""
    folder.mkdir(exist_ok=True)
    for split, rows in splits.items():
        (folder / f"{name}_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    definition = {
        **{"task": name, "dataset_path": "json", "test_split": "test", "output_type": "generate_until"},
        "dataset_kwargs": {"data_files": {split: str(folder / f"{name}_{split}.jsonl") for split in splits}},
        **{"doc_to_text": "{{question}}", "doc_to_target": "{{answer}}"},
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 16},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
        **changes,
    }
    # JSON is YAML.
    (folder / f"{name}.yaml").write_text(json.dumps(definition))
    return folder


def write_symbols(folder: Path, name: str = "symbols") -> Path:
    """Write a list task in the symbols of the embedded models; every third reference answer is a wrong one."""
    samples = build_task(compose(["task=list_sort", "task.samples=9", "task.lengths=[4]"])).instances()
    answers = [" ".join(next(sample.instance.answers())) for sample in samples]
    rows = [
        {"question": sample.prompt, "answer": answer if place % 3 else f"{answer} Z"}
        for place, (sample, answer) in enumerate(zip(samples, answers, strict=True))
    ]
    generation = {"until": [" <eos>"], "max_gen_toks": 16}
    return write(folder, name, {"test": rows}, generation_kwargs=generation)
