"""`decbench train adadec model=NAME [data=FILE] [tokens=20000] [seed=0] [out=FILE]`: a model's threshold of entropy.

He et al., arXiv:2506.08980, and their `logistic_regression.py`: the model reads right answers token by token; a
logistic regression says from the entropy whether the right token is its first choice, and the cut of that probability
which is right most often becomes `method.theta` of `adadec`. The cut is searched on the fifth of the tokens that the
regression has not seen, so that its accuracy is optimistic; as released.

Answers are those of the lists that embedded models are trained on, of other draws than theirs, or those of FILE, JSON
lines {"prompt": ..., "answer": ...}.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, DataError, MissingDependency

if TYPE_CHECKING:
    import numpy as np

    from harness.models.pool import LoadedModel

_ROWS = "JSON lines with prompt and answer"
_SEED = 42
_SHARE = 0.2
_BATCH = 32
_GRID = [step / 100 for step in range(1, 100)]
_OPTIONS = {"model": "tiny_ar", "data": "", "tokens": "20000", "seed": "0", "out": ""}


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A threshold, and what it rests on: the regression P(rank 1 | H) = sigmoid(b + w H) and the cut p of it."""

    theta: float
    w: float
    b: float
    p: float
    accuracy: float
    tokens: int
    rank_1: float
    above: float


def main(argv: Sequence[str]) -> int:
    """Learn the threshold, print it, and write it where it is asked for."""
    options = _read(argv)
    entropy_N, rank_N = _observed(options)
    learned = learn(entropy_N, rank_N)
    told = {"model": options["model"], "data": options["data"] or "lists", "seed": int(options["seed"])} | vars(learned)
    text = json.dumps({key: round(one, 6) if isinstance(one, float) else one for key, one in told.items()}, indent=1)
    if options["out"]:
        Path(options["out"]).write_text(text + "\n")
    sys.stdout.write(f"{text}\nuse it: decbench run model={options['model']} method=adadec")
    sys.stdout.write(f" method.theta={learned.theta:.6f}\n")
    return 0


def threshold(w: float, b: float, p: float) -> float:
    """Return the entropy at which sigmoid(b + w H) is `p`."""
    return round((math.log(p / (1 - p)) - b) / w, 6)


def learn(entropy_N: "np.ndarray", rank_N: "np.ndarray") -> Learned:
    """Return what entropies of tokens and the ranks of the right ones (1: the first choice) say; steps 2 to 6.

    Raise DataError where every token is the first choice, or none is.
    """
    import numpy as np
    import pandas as pd

    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise MissingDependency("train adadec: needs scikit-learn: pip install 'decbench[learn]'") from None
    first_N = (rank_N == 1).astype(int)
    if len(set(first_N.tolist())) < 2:
        raise DataError(f"train adadec: of {len(first_N)} tokens all or none are the first choice; give other answers")
    frame = pd.DataFrame({"entropy": entropy_N, "first": first_N})
    parts: Any = train_test_split(frame, test_size=_SHARE, random_state=_SEED)
    seen, unseen = parts
    fewest = int(seen["first"].value_counts().min())
    balanced = pd.concat([seen[seen["first"] == one].sample(fewest, random_state=_SEED) for one in (0, 1)])
    model: Any = LogisticRegression().fit(balanced[["entropy"]].to_numpy(), balanced["first"].to_numpy())
    p_N = model.predict_proba(unseen[["entropy"]].to_numpy())[:, 1]
    right = [float(np.mean((p_N >= cut) == (unseen["first"].to_numpy() == 1))) for cut in _GRID]
    best = int(np.argmax(right))
    w, b = float(model.coef_[0, 0]), float(model.intercept_[0])
    theta = threshold(w, b, _GRID[best])
    return Learned(
        theta=theta,
        w=w,
        b=b,
        p=_GRID[best],
        accuracy=right[best],
        tokens=len(first_N),
        rank_1=float(first_N.mean()),
        above=float((entropy_N >= theta).mean()),
    )


def _read(argv: Sequence[str]) -> dict[str, str]:
    from harness.config.catalogue import nearest

    options = dict(_OPTIONS)
    for word in argv:
        key, sign, value = word.partition("=")
        if key not in options or not sign:
            raise ConfigError(f"train adadec {word}: no such option; {nearest(key, options)}")
        options[key] = value
    for key, least in (("tokens", 1), ("seed", 0)):
        if not options[key].isdigit() or int(options[key]) < least:
            raise ConfigError(f"{key}={options[key]}: must be a whole number of at least {least}")
    return options


def _observed(options: Mapping[str, str]) -> "tuple[np.ndarray, np.ndarray]":
    """Return the entropy of every token of right answers, and the rank of the right one."""
    import numpy as np

    from harness.config.build import Builder, load_model
    from harness.config.compatibility import look_at_models
    from harness.config.composition import compose

    cfg = compose([f"model={options['model']}", "method=ar_greedy"])
    if cfg.model.kind != "causal":
        raise ConfigError(f"model={options['model']}: is {cfg.model.kind}; choose a causal model")
    if cfg.model.tokenizer != "symbols" and not options["data"]:
        raise ConfigError(f"model={options['model']}: reads text; give right answers by data=FILE")
    look_at_models(cfg, Builder())
    loaded, wanted, parts = load_model(cfg), int(options["tokens"]), []
    for rows in _batches(loaded, options, cfg.model.max_items):
        parts.append(_read_answers(loaded, rows))
        if sum(len(one) for one, _ in parts) >= wanted:
            break
    entropies, ranks = zip(*parts, strict=True)
    return np.concatenate(entropies), np.concatenate(ranks)


Pair = tuple[list[int], list[int]]
"""The ids of a prompt and of its right answer."""


def _batches(loaded: "LoadedModel", options: Mapping[str, str], max_items: Any) -> Iterator[list[Pair]]:
    if not options["data"]:
        yield from _lists(int(options["seed"]), max_items)
        return
    pairs, path = [], Path(options["data"])
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise DataError(
            f"data={path}: cannot be read ({error.strerror}); give JSON lines with prompt and answer"
        ) from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            pairs.append((loaded.tokenizer.encode_prompt(row["prompt"]), loaded.tokenizer.encode(row["answer"])))
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path}, row {number}: must be JSON with the texts prompt and answer") from None
    if not pairs:
        raise DataError(f"data={path}: holds no rows; give {_ROWS}")
    yield from (pairs[at : at + _BATCH] for at in range(0, len(pairs), _BATCH))


def _lists(seed: int, max_items: int) -> Iterator[list[Pair]]:
    """Yield lists of the training split without end, with ends, from draws that no recipe makes."""
    from harness.models.tokenizer import IDS
    from tasks.lists.training import Layout, batches

    layout = Layout(ids=IDS, max_items=max_items, answer_length=16, longest_list=10)
    for rows_BT in batches(layout=layout, rows=_BATCH, seed=1_000_000 + seed):
        rows = rows_BT.tolist()
        width, end = layout.prompt_length, IDS["<eos>"]
        yield [(row[:width], row[width : row.index(end, width) + 1]) for row in rows]


def _read_answers(loaded: "LoadedModel", rows: Sequence[Pair]) -> "tuple[np.ndarray, np.ndarray]":
    """Return entropy and rank of every answer token, in one pass over the rows."""
    import torch

    from harness.engine.shared.model import ForwardRequest

    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    if longest > loaded.model.spec.max_length:
        raise DataError(f"data: a row of {longest} tokens exceeds the {loaded.model.spec.max_length} positions")
    tokens_BT = torch.full((len(rows), longest), loaded.model.spec.pad_id)
    at_N, target_N = [], []
    for row, (prompt, answer) in enumerate(rows):
        tokens_BT[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        at_N += [row * longest + len(prompt) - 1 + place for place in range(len(answer))]
        target_N += answer
    device = loaded.model.device
    request = ForwardRequest(tokens_BT.to(device), select_N=torch.tensor(at_N, device=device))
    log_p_NV = loaded.model.forward(request).double().log_softmax(-1)
    target_N1 = torch.tensor(target_N, device=device)[:, None]
    entropy_N = torch.special.entr(log_p_NV.exp()).sum(-1)
    rank_N = 1 + (log_p_NV > log_p_NV.gather(1, target_N1)).sum(-1)
    return entropy_N.cpu().numpy(), rank_N.cpu().numpy()
