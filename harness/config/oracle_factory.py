"""Loader of the oracle models: joins the exact laws, the symbols of a prompt, and the list tasks."""

import re

import torch

from harness.engine.shared.model import ModelKind, ModelSpec
from harness.errors import DataError
from harness.models.laws import Law, Listed, Shuffled
from harness.models.oracle import LawOf, Oracle
from harness.models.pool import LoadedModel
from harness.models.tokenizer import ARG, BOS, IDS, NONE, PAD, SEP, SymbolTokenizer, ids_of
from tasks.lists.instance import ListInstance


def load_oracle(
    *,
    name: str,
    kind: str,
    max_length: int = 128,
    allow_identity: bool = False,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """Return an oracle of list tasks; `kind` is "masked_diffusion" or "causal".

    With `allow_identity` a shuffle may leave the list as it is, which graders reject.
    """
    causal = ModelKind(kind) is ModelKind.CAUSAL
    spec = ModelSpec(
        name=name,
        kind=ModelKind(kind),
        vocab_size=SymbolTokenizer.vocab_size,
        max_length=max_length,
        layers=1,
        stop_ids=(SymbolTokenizer.eos_id,),
        pad_id=SymbolTokenizer.pad_id,
        mask_id=None if causal else SymbolTokenizer.mask_id,
        shift=1 if causal else 0,
    )
    model = Oracle(
        spec=spec,
        law_of=law_of(allow_identity=allow_identity),
        separator_id=IDS[SEP],
        dtype=dtype,
        device=device,
    )
    return LoadedModel(model=model, tokenizer=SymbolTokenizer(), checkpoint_sha256=None, parameters=0)


def law_of(*, allow_identity: bool = False) -> LawOf:
    """Return the function from the ids of a list prompt to the law of its answers."""

    def read(prompt: tuple[int, ...]) -> Law:
        instance = _instance(SymbolTokenizer().decode(prompt))
        end_id = SymbolTokenizer.eos_id
        if instance.op == "shuffle":
            items = tuple(ids_of(instance.items))
            return Shuffled(items=items, end_id=end_id, allow_identity=allow_identity)
        return Listed(answers=tuple(tuple(ids_of(a)) for a in instance.answers()), end_id=end_id)

    return read


def _instance(prompt: str) -> ListInstance:
    """Return the problem that `<bos> OP IDX WORD <arg> x_0 .. x_{n-1} <pad>.. <sep>` states.

    Raises DataError for anything else.
    """
    if not re.match(f"{BOS} \\S+ (#\\d+|{NONE}) \\S+ {ARG} .*{SEP}$", prompt):
        raise DataError(
            f"prompt {prompt!r}: the oracle reads `{BOS} OPERATION INDEX WORD {ARG} items {SEP}` only; "
            f"run it on a list task with the symbols template"
        )
    _, operation, argument, word, _, *items, _ = prompt.split()
    field = "count" if operation.startswith("repeat") else "index"
    return ListInstance(
        op=operation,
        items=tuple(item for item in items if item != PAD),
        word=None if word == NONE else word,
        id="prompt",
        split="prompt",
        seed=0,
        **({} if argument == NONE else {field: int(argument.removeprefix("#"))}),
    )
