"""`decbench train NAME [key=value ...]`: train an embedded model and write its checkpoint with a sidecar.

The sidecar `training.json` gives the command, the recipe, the seeds, the loss curve, the time, the digest of the
weights, and the share of exact matches at one token per step for every operation and length.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from harness.errors import ConfigError
from harness.runs.catalogue import names, nearest, read

_CURVE_STEP = 100
_EVALUATED = 500
MAX_ITEMS, ANSWER_LENGTH, MAX_LENGTH = 10, 16, 128
DATA_VERSION = "list operations, fixed header, 3 to 10 of 52 letters, sampler 1"


def main(argv: Sequence[str]) -> int:
    """Train; `out=FOLDER` writes elsewhere than into the package, `evaluate=0` leaves the evaluation out."""
    if not argv or argv[0] not in names("training"):
        given = argv[0] if argv else ""
        raise ConfigError(f"train {given}: no such embedded model; {nearest(given, names('training'))}")
    name, settings = argv[0], read("training", argv[0]) | {"out": None, "evaluate": _EVALUATED}
    for override in argv[1:]:
        key, _, value = override.partition("=")
        if key not in settings:
            raise ConfigError(f"{key}: no such training setting; {nearest(key, settings)}")
        settings[key] = _number(value)
    _train(name, settings, " ".join(["decbench train", *argv]))
    return 0


def _number(value: str) -> object:
    import yaml

    return yaml.safe_load(value)


def _train(name: str, settings: dict, command: str) -> None:
    import torch
    from rich.progress import Progress

    from harness.models import checkpoint, embedded, training
    from harness.models.tokenizer import IDS
    from tasks.lists.training import Layout, batches

    torch.set_num_threads(1)
    recipe = training.Recipe(
        steps=settings["steps"],
        rows=settings["rows"],
        learning_rate=settings["learning_rate"],
        seed=settings["seed"],
    )
    layout = Layout(ids=IDS, max_items=MAX_ITEMS, answer_length=ANSWER_LENGTH)
    text = training.Text(prompt_length=layout.prompt_length, mask_id=IDS["<mask>"], eos_id=IDS["<eos>"])
    losses: list[float] = []
    started, busy = time.perf_counter(), time.process_time()
    with Progress() as bar:
        task = bar.add_task(name, total=recipe.steps)

        def report(step: int, loss: float) -> None:
            losses.append(loss)
            bar.update(task, advance=1, description=f"{name} loss {loss:.3f}")

        initial = settings["initial"]
        model = training.train(
            _shape(settings),
            recipe,
            text,
            batches(layout=layout, rows=recipe.rows, seed=recipe.seed),
            report,
            None
            if initial is None
            else checkpoint.load(embedded.CHECKPOINTS / initial, dtype=torch.float32, device=torch.device("cpu")),
        )
    folder = Path(settings["out"]) if settings["out"] else embedded.CHECKPOINTS / name
    digest = checkpoint.save(model, folder)
    sidecar = {
        "command": command,
        "settings": {k: v for k, v in settings.items() if k != "out"},
        "data": DATA_VERSION,
        "initial_sha256": checkpoint.sha256(embedded.CHECKPOINTS / initial / checkpoint.WEIGHTS) if initial else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "wall_s": round(time.perf_counter() - started, 1),
        "cpu_s": round(time.process_time() - busy, 1),
        "torch": torch.__version__,
        "sha256": digest,
        "loss_curve": curve(losses),
    }
    if settings["evaluate"]:
        exact_match = evaluate(name, folder, settings["evaluate"])
        sidecar["evaluation"] = {"samples_per_length": settings["evaluate"], "exact_match": exact_match}
    (folder / "training.json").write_text(json.dumps(sidecar, indent=1) + "\n")


def _shape(settings: dict):
    from harness.models.tokenizer import VOCABULARY
    from harness.models.transformer import Attention, TransformerConfig

    return TransformerConfig(
        vocab_size=len(VOCABULARY),
        width=128,
        layers=4,
        heads=4,
        kv_heads=4,
        head_width=32,
        feed_forward_width=384,
        max_length=MAX_LENGTH,
        attention=Attention(settings["attention"]),
        block_length=settings["block_length"],
    )


def curve(losses: Sequence[float]) -> list[list[float]]:
    """Return (step, mean loss of the last hundred steps) for every hundredth step."""
    return [
        [end, round(sum(losses[end - _CURVE_STEP : end]) / _CURVE_STEP, 4)]
        for end in range(_CURVE_STEP, len(losses) + 1, _CURVE_STEP)
    ]


def evaluate(name: str, folder: Path, samples: int) -> dict[str, dict[str, float]]:
    """Return exact match at one token per step by operation and length, on `samples` held-out lists per length."""
    from harness.runs import build, config
    from harness.runs.decode_batch import decode_batch
    from harness.runs.measure import Measure, Measurement

    table: dict[str, dict[str, float]] = {}
    for task_name in (n for n in names("task") if n.startswith("list_")):
        lengths = config.compose([f"task={task_name}"]).task.lengths
        for length in lengths:
            method = {"tiny_ar": "ar_greedy"}.get(name, "llada")
            overrides = [f"model={name}", f"model.path={folder}", f"task={task_name}", f"method={method}"]
            overrides += [f"task.lengths=[{length}]", f"task.samples={samples}"]
            overrides += ["method.block_length=8"] if name == "tiny_block" else []
            cfg = config.compose(overrides)
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
            correct = sum(
                task.score(sample, loaded.tokenizer.decode(made.tokens)).correct
                for sample, made in zip(posed, decoded.generations, strict=True)
            )
            table.setdefault(task_name.removeprefix("list_"), {})[str(length)] = round(correct / len(posed), 4)
    return table
