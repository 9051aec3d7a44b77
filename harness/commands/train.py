"""`decbench train NAME [key=value ...]`: train an embedded model in stages and write its checkpoint with a sidecar.

The sidecar `training.json` gives the command, the stages with their seeds and loss curves, the time, the digest of the
weights, and the share of exact matches at one token per step for every operation and length.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.catalogue import names, nearest, read
from harness.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress

    from harness.models.transformer import Transformer, TransformerConfig

_CURVE_STEP = 100
MAX_ITEMS, ANSWER_LENGTH, MAX_LENGTH = 10, 16, 128
TINY_WORDS = ("task.renderer=tiny", "task.template=fixed", "task.gen_length=16")
DATA_VERSION = "list operations, fixed header, 3 to 10 of 52 letters, sampler 1"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line may say.

    `scale` runs that share of every stage's steps, `evaluate` is the number of lists per operation and length (0:
    none), `out` is a folder other than the package's own.
    """

    scale: float = 1.0
    evaluate: int = 500
    out: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 1:
            raise ConfigError(f"scale={self.scale}: must lie in (0, 1]")
        if self.evaluate < 0:
            raise ConfigError(f"evaluate={self.evaluate}: must be at least 0")
        if self.out is not None and not self.out.strip():
            raise ConfigError("out=: names no folder; leave it out to replace the model that is shipped")


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a recipe may say of its rows: the width of list prompts, the longest list, and the share of words."""

    max_items: int = MAX_ITEMS
    longest_list: int | None = None
    words: Mapping[str, Any] | None = None


def main(argv: Sequence[str]) -> int:
    """Train the model that the first argument names, or learn what a method needs of a model."""
    if argv and argv[0] == "adadec":
        from harness.commands import train_adadec

        return train_adadec.main(argv[1:])
    if not argv or argv[0] not in names("training"):
        given = argv[0] if argv else ""
        raise ConfigError(f"train {given}: no such embedded model; {nearest(given, [*names('training'), 'adadec'])}")
    _train(argv[0], _options(argv[1:]), " ".join(["decbench train", *argv]))
    return 0


def _options(overrides: Sequence[str]) -> Options:
    kinds = {"scale": (float, "a number"), "evaluate": (int, "a whole number"), "out": (str, "a folder")}
    values: dict[str, Any] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in kinds:
            raise ConfigError(f"{key}: no such training option; {nearest(key, kinds)}")
        try:
            values[key] = kinds[key][0](value)
        except ValueError:
            raise ConfigError(f"{key}={value}: must be {kinds[key][1]}") from None
    return Options(**values)


def _train(name: str, options: Options, command: str) -> None:
    import torch
    from rich.progress import Progress

    from harness.models import checkpoint, embedded

    torch.set_num_threads(1)
    started, busy = time.perf_counter(), time.process_time()
    recipe, stages = read("training", name), []
    model = _begun(recipe.get("begins_with"))
    with Progress() as bar:
        for number, stage in enumerate(recipe["stages"], start=1):
            stage |= {"steps": max(1, round(options.scale * stage["steps"]))}
            shape = _shape(stage, recipe.get("shape", {}))
            data = Data(**recipe.get("data", {}))
            model, losses = _run_stage(f"{name} stage {number}", stage, shape, data, model, bar)
            stages.append(stage | {"loss_curve": curve(losses)})
    assert model is not None, "a model has at least one stage"
    folder = Path(options.out) if options.out else embedded.CHECKPOINTS / name
    sidecar = {
        "command": command,
        "data": DATA_VERSION,
        "parameters": sum(p.numel() for p in model.parameters()),
        "wall_s": round(time.perf_counter() - started, 1),
        "cpu_s": round(time.process_time() - busy, 1),
        "torch": torch.__version__,
        "sha256": checkpoint.save(model, folder),
        "stages": stages,
        **({"rows": recipe["data"]} if "data" in recipe else {}),
    }
    if options.evaluate:
        sidecar["evaluation"] = evaluate(name, folder, options.evaluate)
    (folder / "training.json").write_text(json.dumps(sidecar, indent=1) + "\n")


def _begun(name: str | None) -> "Transformer | None":
    """Return the shipped model that a recipe goes on from, if it names one."""
    if name is None:
        return None
    import torch

    from harness.models import checkpoint, embedded

    return checkpoint.load(embedded.CHECKPOINTS / name, dtype=torch.float32, device=torch.device("cpu"))


def _run_stage(
    label: str,
    stage: dict[str, Any],
    shape: "TransformerConfig",
    data: Data,
    initial: "Transformer | None",
    bar: "Progress",
) -> "tuple[Transformer, list[float]]":
    from harness.models import training
    from harness.models.tokenizer import IDS
    from tasks.lists.training import Focus, Layout, batches
    from tasks.serial.training import Words, mixed

    recipe = training.Recipe(
        steps=stage["steps"],
        rows=stage["rows"],
        learning_rate=stage["learning_rate"],
        seed=stage["seed"],
        exits=stage.get("exits", 0.0),
        balance=stage.get("balance", 0.0),
    )
    layout = Layout(ids=IDS, max_items=data.max_items, answer_length=ANSWER_LENGTH, longest_list=data.longest_list)
    text = training.Text(prompt_length=layout.prompt_length, mask_id=IDS["<mask>"], eos_id=IDS["<eos>"])
    losses: list[float] = []
    task = bar.add_task(label, total=recipe.steps)

    def report(step: int, loss: float) -> None:
        losses.append(loss)
        bar.update(task, completed=step, description=f"{label} loss {loss:.3f}")

    focus = Focus(**stage["focus"]) if "focus" in stage else None
    rows = batches(layout=layout, rows=recipe.rows, seed=recipe.seed, focus=focus)
    if data.words is not None:
        rows = mixed(rows, Words(**data.words), IDS, recipe.seed)
    return training.train(shape, recipe, text, rows, report, initial), losses


def _shape(stage: Mapping[str, Any], other: Mapping[str, Any]) -> "TransformerConfig":
    """Return the shape of a stage: that of the embedded models, but for what a recipe's `shape` says."""
    from harness.models.tokenizer import VOCABULARY
    from harness.models.transformer import Attention, TransformerConfig

    usual = TransformerConfig(
        vocab_size=len(VOCABULARY),
        width=128,
        layers=4,
        heads=4,
        kv_heads=4,
        head_width=32,
        feed_forward_width=384,
        max_length=MAX_LENGTH,
        attention=Attention(stage["attention"]),
        block_length=stage["block_length"],
    )
    return TransformerConfig.from_dict({**usual.to_dict(), **other})


def curve(losses: Sequence[float]) -> list[list[float]]:
    """Return (step, mean loss of the last hundred steps) for every hundredth step."""
    return [
        [end, round(sum(losses[end - _CURVE_STEP : end]) / _CURVE_STEP, 4)]
        for end in range(_CURVE_STEP, len(losses) + 1, _CURVE_STEP)
    ]


def evaluate(name: str, folder: Path, samples: int) -> dict[str, Any]:
    """Return exact match at one token per step by operation and length, on `samples` held-out lists per length.

    And on as many words, for a model that was trained on them too.
    """
    from harness.config.composition import compose

    model = read("model", name)
    table: dict[str, dict[str, float]] = {}
    for task in (n for n in names("task") if n.startswith("list_")):
        table[task.removeprefix("list_")] = {
            str(length): _exact_match(
                model,
                folder,
                [f"task={task}", f"task.lengths=[{length}]", f"task.max_items={model['max_items']}"],
                samples,
            )
            for length in compose([f"task={task}"]).task.lengths
        }
    told: dict[str, Any] = {"samples_per_length": samples, "exact_match": table}
    words = read("training", name).get("data", {}).get("words")
    if words is not None:
        asked = ["task=fsm_word", f"task.group={words['group']}", f"task.length={words['length']}", *TINY_WORDS]
        told["words"] = _exact_match(model, folder, asked, samples)
    return told


def _exact_match(model: Mapping[str, Any], folder: Path, task_is: Sequence[str], samples: int) -> float:
    from harness.config import build, composition
    from harness.runs.decode_batch import decode_batch
    from harness.runs.measure import Measure, Measurement

    overrides = [f"model={model['name']}", f"model.path={folder}", *task_is, f"task.samples={samples}"]
    overrides += [f"method={'ar_greedy' if model['kind'] == 'causal' else 'llada'}", f"gen_length={ANSWER_LENGTH}"]
    overrides += [f"method.block_length={model['block_length']}"] if model["block_length"] else []
    cfg = composition.compose(overrides)
    task, loaded = build.build_task(cfg), build.load_model(cfg)
    posed = task.instances()
    decoded = decode_batch(
        loaded.model,
        build.build_method(cfg),
        [loaded.tokenizer.encode(str(sample.prompt)) for sample in posed],
        seeds=[0] * len(posed),
        gen_length=cfg.gen_length,
        measure=Measure(name=Measurement.COUNTS),
    )
    scores = [
        task.score(sample, loaded.tokenizer.decode(made.answer))
        for sample, made in zip(posed, decoded.generations, strict=True)
    ]
    return round(sum(bool(score.correct and score.strict) for score in scores) / len(posed), 4)
