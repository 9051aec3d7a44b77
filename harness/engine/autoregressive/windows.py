"""One call of a causal model that computes the next positions of every row: how a target is asked, and a draft.

Shapes: B rows, T fed positions of the widest row, L positions, R rows that compute something, N read positions,
V vocabulary. Positions are absolute.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.engine.autoregressive.sequences import Sequences, first
from harness.engine.autoregressive.trees import Tree
from harness.engine.shared.indexing import filled, positions
from harness.engine.shared.model import ForwardRequest, LanguageModel, Part, Store
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.records import Charge, Ledger, Purpose


@dataclass(frozen=True, kw_only=True)
class Window:
    """The tokens at [`start_B`, `end_B`) of each row, which a call computes; logits are read from `read_B` on.

    The keys and values of everything before are in `store`, those of the window get there. Rows whose window is empty
    have no work, only padding; `busy_R` are the others, None where there are no such rows. `part` says which layers are
    run (None: all); states that it begins with are those of the window, of no fewer than the fed positions.

    With `slot_B` all tokens of a row share that slot, at the position of the last: the call computes one position each.
    With a `tree`, what stands behind the `read_B` is one: those places are slots, and positions follow from depths.
    `told` are starts, ends, and where is read from, with the tensors that the host has read them of.
    """

    tokens_BL: Tensor
    start_B: Tensor
    end_B: Tensor
    read_B: Tensor
    store: Store
    busy_R: Tensor | None = None
    tree: Tree | None = None
    part: Part | None = None
    slot_B: Tensor | None = None
    told: Sequence[tuple[Tensor, list[int]]] = ()


def ask(
    model: LanguageModel, window: Window, sequences: Sequences, ledger: Ledger, role: Purpose, *, checked: bool = True
) -> Prediction:
    """Return what the model predicts behind the read positions; raise DecodeError for logits that are not numbers.

    Not `checked`, that is left to `Prediction.require_numbers`.

    `role` is what the call is for, or that of a model beside target and draft (`Models.others`), whom it is charged to.
    The causal mask alone hides what the store holds of rejected drafts: it lies behind every query. A tree needs a mask
    of its own, as siblings stand at one position.
    """
    end_B, tokens_BL = window.end_B, window.tokens_BL
    start_B = window.start_B if window.slot_B is None else end_B - 1
    starts, ends, reads = _on_host(start_B, window)
    counts = [end - start for start, end in zip(starts, ends, strict=True)]
    read = sum(max(0, end - max(start, first_read)) for start, end, first_read in zip(starts, ends, reads, strict=True))
    query_B, end, offset_T = _less(end_B, start_B, counts), max(ends), positions(width := max(counts), start_B.device)
    slot_BT, real_BT = start_B[:, None] if width == 1 else start_B[:, None] + offset_T, None
    if min(counts) < width:
        # A padding query stands at position 0, so that it sees a key, and writes to the last slot, which is free
        # because the last token of a generation is never fed; writing slot 0 again could round it differently.
        real_BT = offset_T < query_B[:, None]
        slot_BT = torch.where(real_BT, slot_BT, 0)
    read_N = _read(slot_BT, real_BT, window.read_B, read)
    position_BT, visible_BTS, tree = slot_BT, None, window.tree
    if tree is not None:
        position_BT = tree.places(slot_BT, window.read_B + 1)
        visible_BTS = tree.visible(slot_BT, window.read_B + 1, end)
    taken_BT = slot_BT
    if window.slot_B is not None:
        taken_BT, end = window.slot_B[:, None], int(window.slot_B.max()) + 1
        visible_BTS = torch.arange(end, device=taken_BT.device) <= taken_BT[..., None]
    request = ForwardRequest(
        tokens_BL.gather(1, slot_BT),
        positions_BT=position_BT,
        slots_BT=taken_BT if real_BT is None else torch.where(real_BT, taken_BT, window.store.slots - 1),
        kv=window.store,
        end=end,
        visible_BTS=visible_BTS,
        structured=visible_BTS is None,
        select_N=read_N,
        part=_fed(window.part, width),
    )
    heads = [last - first_read for last, first_read in zip(ends, reads, strict=True)]
    logits_NV = ledger.call(model, request, _charge(window, query_B, counts, heads, sequences.sample_B, role))
    broken = logits_NV.amax().isnan() if read else None
    if model.spec.mask_id is not None:
        logits_NV[:, model.spec.mask_id] = -torch.inf
    row_N = read_N if width == 1 else read_N // width
    position_N = position_BT.reshape(-1)
    position_N = (position_N if read == width * len(counts) else position_N.index_select(0, read_N)) + model.spec.shift
    made = Prediction(
        logits_NV=logits_NV,
        places=Places.of(row_N, position_N, (len(tokens_BL), tokens_BL.shape[1])),
        spec=model.spec,
        broken=broken,
    )
    if checked:
        made.require_numbers(sequences.sample_B)
    return made


def _on_host(start_B: Tensor, window: Window) -> Sequence[Sequence[int]]:
    """Return where each row starts, ends and is read from; waits for the device where the window has not told it."""
    columns = (start_B, window.end_B, window.read_B)
    if window.told and all(one is column for (one, _), column in zip(window.told, columns, strict=True)):
        return [numbers for _, numbers in window.told]
    return torch.stack(columns).tolist()


def _read(slot_BT: Tensor, real_BT: Tensor | None, read_B: Tensor, count: int) -> Tensor:
    """Return which of the fed positions are read, so many."""
    if real_BT is None and count == slot_BT.numel():
        return positions(count, slot_BT.device)
    read_BT = slot_BT >= read_B[:, None]
    read_BT = read_BT if real_BT is None else read_BT & real_BT
    return torch.nonzero_static(read_BT.view(-1), size=count).view(-1)


def _fed(part: Part | None, width: int) -> Part | None:
    if part is None or part.states_BTC is None:
        return part
    return replace(part, states_BTC=part.states_BTC[:, :width])


def _less(later_B: Tensor, earlier_B: Tensor, told: Sequence[int]) -> Tensor:
    """Return `later_B` less `earlier_B`, which the host knows to be `told`."""
    if min(told) == max(told):
        return filled((len(told),), told[0], later_B.dtype, later_B.device)
    return later_B - earlier_B


def _charge(
    window: Window, query_B: Tensor, counts: Sequence[int], heads: Sequence[int], sample_B: Tensor, role: Purpose
) -> Charge:
    """Return what a call is charged that feeds each row `counts` tokens, of which `heads` are read."""
    start_B, width = window.start_B, window.tokens_BL.shape[1]
    head_B = _less(window.end_B, window.read_B, heads)
    # Of rows that are all fed as much it is known without the device how many keys a query sees in the mean.
    keys_B = start_B + ((counts[0] + 1) / 2 if min(counts) == max(counts) else (query_B + 1) / 2)
    idle_B = sample_B[query_B == 0] if window.busy_R is not None else None
    if window.tree is not None:
        behind_B = query_B - head_B + 1
        seen_B = (start_B + (behind_B + 1) / 2) * behind_B + (window.read_B + 1) * (head_B - 1)
        keys_B = (seen_B + window.tree.depth_BK.sum(1)) / query_B
    if window.slot_B is not None:
        keys_B = window.slot_B + 1.0
    if window.busy_R is not None:
        parts = (start_B, head_B, query_B, sample_B, keys_B)
        start_B, head_B, query_B, sample_B, keys_B = (one.index_select(0, window.busy_R) for one in parts)
    return Charge(
        role=role,
        sample_B=sample_B,
        query_B=query_B,
        keys_B=keys_B,
        head_B=head_B,
        reused=lambda: first(start_B, width),
        idle_B=idle_B,
    )
