"""`decbench generate PROMPT [key=value ...] [trace=true] [--json]`: one prompt of your own, its answer and its work.

A model with a chat template is asked in a user's turn; `turns=text` hands the prompt over as it stands. Nothing is
stored. The rest of the command line is that of `run`, without task.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.config.overrides import parse
from harness.config.root import refuse_unknown
from harness.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.text import Text

    from harness.models.pool import LoadedModel, Tokenizer
    from harness.runs.decode_batch import Decoded

_SETTING = re.compile(r"[~+]*[A-Za-z_][\w./@]*=")
_USAGE = 'decbench generate "PROMPT" model=NAME method=NAME key=value ...; - reads the prompt from standard input'
_LENGTH = 256
"""Answer tokens of models that read text, unless gen_length says otherwise."""

_SHOWN = ("nfe", "query_tokens", "tokens_out")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for; `turns` is text, or one for a user's turn where the model knows turns."""

    prompt: str
    overrides: list[str]
    trace: bool
    turns: str


def main(argv: Sequence[str]) -> int:
    """Answer a prompt; print the answer, its counts and, if asked, what every call committed."""
    from harness.config.presence import refuse_absent_model

    request = read(argv)
    refuse_absent_model(request.overrides)
    loaded, decoded = _decode(request)
    (made,), (counters,) = decoded.generations, decoded.counters(loaded.model.spec.stop_ids)
    answer = loaded.tokenizer.decode(made.answer)
    lines = list(_lines(decoded, loaded)) if request.trace else []
    if "--json" in argv:
        seen = {"unseen": list(made.outside.unseen)} if made.outside is not None else {}
        steps = {"steps": [line.plain for line in lines]} if request.trace else {}
        sys.stdout.write(json.dumps({"answer": answer, **counters, **seen, **steps}) + "\n")
        return 0
    _print(answer, counters, made.outside.unseen if made.outside is not None else (), lines)
    return 0


def read(argv: Sequence[str]) -> Request:
    """Return what is asked for; raise ConfigError for no prompt, more than one, and what only runs have."""
    words = [word for word in argv if word != "--json"]
    # A prompt with an equation in it may look like a setting: then it stands first.
    free = [word for word in words if _SETTING.match(word) is None] or words[:1]
    if len(free) != 1:
        raise ConfigError(f"{' '.join(free)}: {'one prompt, in quotes' if free else 'a prompt is due'}: {_USAGE}")
    words.remove(free[0])
    own = {"trace": "false", "turns": "one"} | dict(
        w.split("=", 1) for w in words if w.startswith(("trace=", "turns="))
    )
    for key, known in {"trace": ("true", "false"), "turns": ("one", "text")}.items():
        if own[key] not in known:
            raise ConfigError(f"{key}={own[key]}: must be {' or '.join(known)}")
    overrides = [word for word in words if not word.startswith(("trace=", "turns="))]
    for word in overrides:
        if word.lstrip("+~").startswith(("task", "experiment", "protocol", "measure")):
            raise ConfigError(f"{word}: is for run; generate asks the prompt that is given")
    prompt = _standard_input() if free[0] == "-" else free[0]
    return Request(prompt=prompt, overrides=overrides, trace=own["trace"] == "true", turns=own["turns"])


def _standard_input() -> str:
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"standard input: not UTF-8 ({error.reason}); write the prompt in UTF-8") from error


def _decode(request: Request) -> "tuple[LoadedModel, Decoded]":
    refuse_unknown(parse(request.overrides))
    from harness.config.composition import compose
    from harness.config.job import resolve_decoding
    from harness.engine.shared.randomness import sample_seed
    from harness.runs.decode_batch import decode_batch, with_room
    from harness.runs.loading import load
    from harness.runs.measure import Measure, Measurement
    from harness.runs.votes import in_tokens

    cfg = compose(request.overrides)
    if cfg.model.tokenizer == "text" and not any(word.startswith("gen_length=") for word in request.overrides):
        cfg = compose([*request.overrides, f"gen_length={_LENGTH}"])
    decoding = resolve_decoding(cfg)
    _, loaded = load(cfg, decoding.checkpoints)
    ids = loaded.tokenizer.encode_prompt(_posed(request, loaded.tokenizer)) if request.prompt else []
    decoded = decode_batch(
        loaded.model,
        in_tokens(decoding.method, loaded.tokenizer),
        [with_room(loaded, ids, gen_length=cfg.gen_length, where="prompt", model=cfg.model.name)],
        seeds=[sample_seed(cfg.seed, "generate", "prompt")],
        gen_length=cfg.gen_length,
        measure=Measure(name=Measurement.TRACED if request.trace else Measurement.COUNTS),
    )
    return loaded, decoded


def _posed(request: Request, tokenizer: "Tokenizer") -> Any:
    from harness.models.text import TextTokenizer

    in_turns = isinstance(tokenizer, TextTokenizer) and tokenizer.inner.chat_template is not None
    return [{"role": "user", "content": request.prompt}] if in_turns and request.turns == "one" else request.prompt


def _lines(decoded: "Decoded", loaded: "LoadedModel") -> "Iterator[Text]":
    """Yield one line per step with the positions and tokens that it committed, or per call where steps are not seen."""
    from rich.text import Text

    (made,) = decoded.generations
    for number, step in enumerate(decoded.steps, start=1):
        positions: Any = step.get("positions", [p for p, at in enumerate(made.decided_at) if at == step["step"]])
        tokens: Any = step.get("tokens", [made.tokens[p] for p in positions])
        line = Text(f"{number:>5}  {len(positions)} committed")
        for position, token in zip(positions, tokens, strict=True):
            line.append(f"  {position} ", "dim").append(_shown(token, loaded), "bold green")
        yield line
    for number, call in enumerate([] if decoded.steps else decoded.calls, start=1):
        rows, width = len(call.query_B), int(call.query_B[0])
        purpose = call.role if isinstance(call.role, str) else call.role.value
        yield Text(f"{number:>5}  {purpose}: {rows} {'row' if rows == 1 else 'rows'} of {width} positions")


def _shown(token: int, loaded: "LoadedModel") -> str:
    text = loaded.tokenizer.decode([token])
    if not text and token in loaded.model.spec.stop_ids:
        return "<stop>"
    return json.dumps(text, ensure_ascii=False)


def _print(answer: str, counters: dict[str, Any], unseen: Sequence[str], lines: "Sequence[Text]") -> None:
    from harness.commands.console import console as output

    console = output()
    for line in lines:
        console.print(line, soft_wrap=True)
    console.print(answer, highlight=False, soft_wrap=True)
    calls, query, tokens = (counters[name] for name in _SHOWN)
    per_call = f"{tokens / calls:.2f}" if calls and tokens is not None else "-"
    numbers = {"calls": calls, "query tokens": query, "tokens": tokens, "tokens per call": per_call}
    said = "   ".join(f"{name}: {'-' if value is None else value}" for name, value in numbers.items())
    console.print(said, style="dim", highlight=False, soft_wrap=True)
    if unseen:
        console.print(f"not seen: {', '.join(unseen)}", style="dim", highlight=False, soft_wrap=True)
