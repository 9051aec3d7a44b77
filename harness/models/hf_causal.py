"""Any causal checkpoint that transformers has a class for, behind the engine's interface, key/value stores included."""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.engine.shared.model import ForwardRequest, LanguageModel, ModelKind, ModelSpec, Store
from harness.errors import ConfigError, DataError
from harness.models import hub, text
from harness.models.pool import LoadedModel
from harness.models.public.weights import digest
from harness.models.slots import SlotCache, SlotStore

_PROBE = 9
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2}
_LOW_PRECISION_TOLERANCE = 0.25


class CausalModel:
    """A transformers model that the draft-verify loop can call; shapes as in `harness.engine.shared.model`."""

    def __init__(self, inner: Any, spec: ModelSpec) -> None:
        self.inner, self.spec = inner, spec
        arguments = inspect.signature(inner.forward).parameters
        # Renamed in transformers 5.24.
        self._cache = "cache" if "cache" in arguments else "past_key_values"
        self._keeps_rows = "logits_to_keep" in arguments

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.inner.device

    @property
    def attention(self) -> str | None:
        """Name of the attention that the class computes with, as it says."""
        return getattr(self.inner.config, "_attn_implementation", None)

    def new_store(self, rows: int, slots: int) -> SlotStore:
        """Return an empty key/value store; a layer takes its memory when it first writes."""
        return SlotStore(self.spec.layers, rows, slots)

    @torch.no_grad()
    def forward(self, request: ForwardRequest) -> Tensor:
        """Return raw logits.

        The head is computed for the columns of T that some row selects, or for all where the class cannot choose.
        Raise TypeError for `observe`, `plan` and `part`: the class's layers and fused attention have nothing to show.
        """
        if request.observe is not None or request.plan is not None or request.part is not None:
            raise TypeError(f"model {self.spec.name} does not show its attention and layers")
        kv, tokens_BT, positions_BT, select_N = request.kv, request.tokens_BT, request.places_BT(), request.select_N
        rows, width = tokens_BT.shape
        store = self.new_store(rows, width) if kv is None else kv
        assert isinstance(store, SlotStore)
        slots_BT = _window_slots(positions_BT, kv) if request.slots_BT is None else request.slots_BT
        end = store.slots if request.end is None else request.end
        keys_BS = positions_BT if kv is None else torch.arange(end, device=tokens_BT.device)[None]
        mask_BTS = _visible(positions_BT, keys_BS, request.visible_BTS, request.structured)
        columns_C = None if select_N is None else torch.unique(select_N % width)
        arguments: dict[str, Any] = {self._cache: SlotCache(store, slots_BT, end)}
        if columns_C is not None and self._keeps_rows:
            arguments["logits_to_keep"] = columns_C
        logits = self.inner(
            input_ids=tokens_BT,
            position_ids=positions_BT,
            attention_mask=_additive(mask_BTS, self.inner.dtype),
            use_cache=True,
            **arguments,
        ).logits
        if select_N is None or columns_C is None:
            return logits
        if not self._keeps_rows:
            return logits.flatten(0, 1)[select_N]
        return logits[select_N // width, torch.searchsorted(columns_C, select_N % width)]


def _window_slots(positions_BT: Tensor, kv: Store | None) -> Tensor:
    """Return the slots of a window: its positions, or without a store the columns themselves."""
    if kv is not None:
        return positions_BT
    return torch.arange(positions_BT.shape[1], device=positions_BT.device).expand_as(positions_BT)


def _visible(positions_BT: Tensor, keys_BS: Tensor, visible_BTS: Tensor | None, structured: bool) -> Tensor:
    own_BTS = keys_BS[:, None, :] <= positions_BT[:, :, None]
    if not structured:
        own_BTS = torch.ones_like(own_BTS)
    return own_BTS if visible_BTS is None else own_BTS & visible_BTS


def _additive(mask_BTS: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask to add to scores; a boolean one is taken for numbers by eager attention, in silence."""
    hidden = torch.zeros(mask_BTS.shape, dtype=dtype, device=mask_BTS.device)
    return hidden.masked_fill_(~mask_BTS, torch.finfo(dtype).min)[:, None]


def load(
    *,
    name: str,
    hub_id: str | None,
    max_length: int,
    path: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """Load a causal checkpoint from the folder `path`, or from the filled hub cache if that is None.

    Raise ConfigError for a checkpoint that is not here or a `max_length` that it does not reach, DataError for one
    that transformers cannot load without remote code, or whose class does not keep to its own mask and positions.
    """
    folder = hub.find(name, hub_id=hub_id, path=path)
    inner = read(folder, "AutoModelForCausalLM", dtype).to(device).eval().requires_grad_(False)
    config = inner.config.get_text_config()
    _require_length(folder, config, max_length)
    tokenizer = text.read(folder)
    stop_ids = stops(folder, inner, tokenizer)
    spec = ModelSpec(
        name=name,
        kind=ModelKind.CAUSAL,
        vocab_size=inner.get_output_embeddings().weight.shape[0],
        max_length=max_length,
        layers=config.num_hidden_layers,
        stop_ids=stop_ids,
        pad_id=stop_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        shift=1,
    )
    model = CausalModel(inner, spec)
    _require_own_logits(folder, model)
    return loaded(folder, model, inner, tokenizer)


def loaded(folder: Path, model: LanguageModel, inner: Any, tokenizer: Any, *, add_eos: bool = False) -> LoadedModel:
    """Return a model of transformers with its tokenizer and the digest of its weights."""
    return LoadedModel(
        model=model,
        tokenizer=text.TextTokenizer(
            tokenizer,
            where=str(folder),
            stop_ids=model.spec.stop_ids,
            add_bos=text.begins_with_bos(tokenizer),
            add_eos=add_eos,
        ),
        checkpoint_sha256=digest(folder, hub.weight_files(folder)),
        parameters=sum(p.numel() for p in inner.parameters()),
    )


def read(folder: Path, auto_class: str, dtype: torch.dtype) -> Any:
    """Return the model of a folder from one of transformers' auto classes; raise DataError where it has none for it."""
    import transformers

    try:
        return getattr(transformers, auto_class).from_pretrained(
            str(folder), dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    # Whatever its readers raise: unknown architectures, missing packages, damaged files.
    except Exception as error:
        raise DataError(
            f"{folder}: transformers {transformers.__version__} cannot load this with {auto_class} "
            f"({text.one_line(error)})"
        ) from None


def _require_length(folder: Path, config: Any, max_length: int) -> None:
    """Refuse positions that the model does not have, and lengths at which layers stop to see everything before."""
    limits = {"positions": getattr(config, "max_position_embeddings", None)}
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention", "sliding_attention"}:
        raise DataError(f"{folder}: layers of kind {', '.join(sorted(kinds))}; the loader knows attention only")
    if "sliding_attention" in kinds or (not kinds and getattr(config, "use_sliding_window", True)):
        limits["positions that every layer sees"] = getattr(config, "sliding_window", None)
    for what, limit in limits.items():
        require_positions(folder, max_length, limit, what)


def require_positions(folder: Path, max_length: int, limit: int | None, what: str = "positions") -> None:
    """Raise ConfigError for a `max_length` beyond what a checkpoint has; `limit` None is no limit."""
    if limit is not None and max_length > limit:
        raise ConfigError(f"model.max_length={max_length}: {folder} has {limit} {what}; use {limit} or less")


def stops(folder: Path, inner: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return the tokens that end an answer, those of generation_config.json first; raise DataError for none."""
    configured = getattr(getattr(inner, "generation_config", None), "eos_token_id", None)
    given = configured if isinstance(configured, list) else [configured]
    stop_ids = dict.fromkeys(i for i in [*given, tokenizer.eos_token_id] if i is not None)
    if not stop_ids:
        raise DataError(f"{folder}: neither generation_config.json nor the tokenizer names a token that ends an answer")
    return tuple(stop_ids)


def _require_own_logits(folder: Path, model: CausalModel) -> None:
    """Compare a short text through the store, window by window, with the class's own plain forward."""
    tokens_BT = (torch.arange(_PROBE, device=model.device) * 7 % model.spec.vocab_size)[None]
    with torch.no_grad():
        plain = model.inner(input_ids=tokens_BT, use_cache=False).logits[0].float()
    store, parts = model.new_store(1, _PROBE + 1), []
    for window in (range(5), range(5, _PROBE)):
        places = torch.tensor([list(window)], device=model.device)
        request = ForwardRequest(tokens_BT[:, places[0]], positions_BT=places, kv=store, end=window.stop)
        parts.append(model.forward(request)[0].float())
    require_close(folder, model.inner, torch.cat(parts), plain)


def require_close(folder: Path, inner: Any, windows_TV: Tensor, plain_TV: Tensor) -> None:
    """Raise DataError where logits computed through a store are not those of the class's own plain forward."""
    allowed = _TOLERANCE.get(inner.dtype, _LOW_PRECISION_TOLERANCE) * float(plain_TV.std())
    difference = float((windows_TV - plain_TV).abs().max())
    if not difference <= allowed:
        raise DataError(
            f"{folder}: {type(inner).__name__} gives other logits window by window than at once (by "
            f"{difference:.2g}); its attention or positions are not those of a plain causal model"
        )
