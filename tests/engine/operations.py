"""What a decode loop does beside the model's calls: operations, waits of the host, copies of a vocabulary."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from harness.engine.shared.model import ForwardRequest, LanguageModel, ModelSpec

# On a device the host waits for each of these: their result, or its size, depends on data.
WAITS = {
    *("_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "is_nonzero", "_unique2"),
    # What these are made of is not seen where nothing is differentiated.
    *("item", "nonzero_numpy"),
    *("unique_dim", "unique_consecutive", "repeat_interleave"),
}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Operations(TorchDispatchMode):
    """Counts by name what is dispatched; views are none. `whole` counts new tensors over a vocabulary of `size`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.paused = size, False
        self.made: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.whole: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and run."""
        made, name = func(*args, **(kwargs or {})), func._schema.name.removeprefix("aten::")
        if self.paused or func.is_view or name in ("lift_fresh", "detach"):
            return made
        picks = name in INDEXED and any(one is not None and one.dtype == torch.bool for one in args[1])
        if (name in WAITS and func._overloadname != "self_int") or picks:
            self.reads[name] += 1
        if name not in ("_local_scalar_dense", "item"):
            self.made[name] += 1
        returns = func._schema.returns
        if not any(each.alias_info for each in returns):
            outputs = made if isinstance(made, tuple | list) else (made,)
            if any(isinstance(one, Tensor) and one.dim() > 1 and one.shape[-1] == self.size for one in outputs):
                self.whole[name] += 1
        return made


def peak_bytes(do: Callable[[], object]) -> int:
    """Return how much more memory than before is in use at most while `do` runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        do()
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    events = [one for one in profiled.profiler.kineto_results.events() if one.name() == "[memory]"]
    changes = [one.nbytes() for one in sorted(events, key=lambda one: one.start_ns())]
    return max(accumulate(changes))


@dataclass
class Aside:
    """A model whose own operations do not count; it takes down how many others there were before each call.

    `waits` are those for which the host waited.
    """

    model: LanguageModel
    operations: Operations
    waits: list[int] = field(default_factory=list)
    made: list[int] = field(default_factory=list)

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def device(self) -> torch.device:
        return self.model.device

    def new_store(self, rows: int, slots: int):
        return self._aside(lambda: self.model.new_store(rows, slots))

    def forward(self, request: ForwardRequest) -> Tensor:
        self.waits.append(self.operations.reads.total())
        self.made.append(self.operations.made.total())
        return self._aside(lambda: self.model.forward(request))

    def _aside(self, do: Callable[[], Any]) -> Any:
        self.operations.paused = True
        try:
            return do()
        finally:
            self.operations.paused = False


@contextmanager
def counted(model: LanguageModel, monkeypatch) -> Iterator[tuple[Aside, Operations]]:
    """Count what happens inside, the calls of the returned model apart; lists and arrays of a tensor are host reads."""
    operations = Operations(model.spec.vocab_size)

    def noting(name: str) -> Callable[..., Any]:
        original = getattr(Tensor, name)

        def read(tensor: Tensor, *arguments: Any, **named: Any) -> Any:
            operations.reads[name] += not operations.paused
            return original(tensor, *arguments, **named)

        return read

    with monkeypatch.context() as patched:
        for name in ("tolist", "numpy", "__array__"):
            patched.setattr(Tensor, name, noting(name))
        with operations:
            yield Aside(model, operations), operations
