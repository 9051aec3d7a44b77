"""Any causal checkpoint that transformers has a class for, behind the engine's interface, key/value stores included."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.engine.own_sampler import Called, Sampled
from harness.engine.shared.indexing import filled, positions
from harness.engine.shared.model import (
    NORMED,
    ForwardRequest,
    LanguageModel,
    ModelKind,
    ModelSpec,
    Part,
    Store,
    Taps,
)
from harness.errors import ConfigError, DataError
from harness.models import hf_generate, hub, text
from harness.models.fit import published_measures
from harness.models.hf_layers import LayerByLayer, layer_by_layer
from harness.models.pool import LoadedModel
from harness.models.public.weights import digest
from harness.models.slots import SlotCache, SlotStore

measures = published_measures
LIBRARY = "transformers"
"""Whose own generation models that are loaded here can be asked for (`library` of a sampler)."""
_PROBE = 9
# Of float64 models too some classes round parts to float32: norms, attention weights.
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-2}
_LOW_PRECISION_TOLERANCE = 0.25


class CausalModel:
    """A transformers model that the draft-verify loop can call; shapes as in `harness.engine.shared.model`.

    With its `layers` it runs parts of itself.
    """

    def __init__(self, inner: Any, spec: ModelSpec, layers: LayerByLayer | None = None) -> None:
        self.inner, self.spec, self.layers = inner, spec, layers
        arguments = inspect.signature(inner.forward).parameters
        # Renamed in transformers 5.24.
        self._cache = "cache" if "cache" in arguments else "past_key_values"
        self._keeps_rows = "logits_to_keep" in arguments
        # A model asks all of its parameters.
        self._dtype = inner.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.inner.device

    @property
    def attention(self) -> str | None:
        """Name of the attention that the class computes with, as it says."""
        return getattr(self.inner.config, "_attn_implementation", None)

    @property
    def parts(self) -> bool:
        """Whether it runs parts of itself."""
        return self.layers is not None

    @property
    def experts(self) -> int:
        """Among how many experts its mixtures choose, 0 without any that can be told to choose others."""
        routers = [] if self.layers is None else self.layers.routers
        return min((router.num_experts for router in routers), default=0)

    def new_store(self, rows: int, slots: int) -> SlotStore:
        """Return an empty key/value store; a layer takes its memory when it first writes."""
        return SlotStore(self.spec.layers, rows, slots)

    @torch.no_grad()
    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embeddings [..., C] of tokens [...], without the norm that some classes have there."""
        table = self.inner.get_input_embeddings()
        return F.embedding(tokens, table.weight) if hasattr(table, "embed_norm") else table(tokens)

    @torch.no_grad()
    def head(self, states: Tensor) -> Tensor:
        """Return raw logits [..., V] of states [..., C] that are behind a norm."""
        return self.inner.get_output_embeddings()(states)

    @torch.no_grad()
    def forward(self, request: ForwardRequest) -> Tensor:
        """Return raw logits.

        The head is computed for the columns of T that some row selects, or for all where the class cannot choose.
        Raise TypeError for `observe` and `plan`, and for `part` where the class's layers are not known: they and fused
        attention have nothing to show.
        """
        part = request.part
        refused = part is not None and self.layers is None and not _is_whole(part)
        if request.observe is not None or request.plan is not None or refused:
            raise TypeError(f"model {self.spec.name} does not show its attention and layers")
        kv, tokens_BT, positions_BT, select_N = request.kv, request.tokens_BT, request.places_BT(), request.select_N
        rows, width = tokens_BT.shape
        store = self.new_store(rows, width) if kv is None else kv
        assert isinstance(store, SlotStore)
        slots_BT = _window_slots(positions_BT, kv) if request.slots_BT is None else request.slots_BT
        end = store.slots if request.end is None else request.end
        keys_BS = positions_BT if kv is None else positions(end, tokens_BT.device)[None]
        mask_BTS = _visible(positions_BT, keys_BS, request.visible_BTS, request.structured)
        cache, mask_B1TS = SlotCache(store, slots_BT, end), _additive(mask_BTS, self._dtype)
        if part is not None and self.layers is not None:
            x_BTC = self.layers.states(part, tokens_BT, positions_BT, mask_B1TS, cache)
            return self.layers.read(request.selected(x_BTC))
        # Of one column there is nothing to choose, and looking for columns waits for the device.
        columns_C = None if select_N is None or width == 1 else torch.unique(select_N % width)
        arguments: dict[str, Any] = {self._cache: cache}
        if columns_C is not None and self._keeps_rows:
            arguments["logits_to_keep"] = columns_C
        if part is not None:
            arguments["output_hidden_states"] = True
        output = self.inner(
            input_ids=tokens_BT,
            position_ids=positions_BT,
            attention_mask=mask_B1TS,
            use_cache=True,
            **arguments,
        )
        if part is not None:
            _tap(part.taps, output.hidden_states)
        logits = output.logits
        if select_N is None:
            return logits
        if columns_C is None or not self._keeps_rows:
            return logits.flatten(0, 1)[select_N]
        return logits[select_N // width, torch.searchsorted(columns_C, select_N % width)]

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        gen_length: int,
        seeds: Sequence[int],
        settings: Mapping[str, object],
        called: Called,
    ) -> list[Sampled]:
        """Return what transformers' own generation answers."""
        draft, given = settings.get("draft"), {name: one for name, one in settings.items() if name != "draft"}
        assert draft is None or hasattr(draft, "inner"), "a model of transformers drafts"
        inner = getattr(draft, "inner", None)
        told = {"gen_length": gen_length, "seeds": seeds, "settings": given, "called": called, "draft": inner}
        return hf_generate.generate(self.inner, self.spec, prompts, **told)


def _is_whole(part: Part) -> bool:
    """Say whether a call runs all of a model on tokens, as the class itself does, and is only to be looked at."""
    begun = part.first or part.states_BTC is not None or part.blend is not None
    changed = part.end is not None or part.skipped or part.abreast > 1 or part.routing is not None
    return not begun and not changed


def _tap(taps: Taps, states: Sequence[Tensor]) -> None:
    """Show taps the states that a class has kept: the last ones are behind the final norm."""
    *inner, normed = states
    for depth in taps.depths:
        assert depth == NORMED or depth < len(inner), "what a class shows behind its last layer is normed"
        taps(depth, normed if depth == NORMED else inner[depth])


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
    seen, hidden = (filled((), one, dtype, mask_BTS.device) for one in (0.0, torch.finfo(dtype).min))
    return torch.where(mask_BTS, seen, hidden)[:, None]


def layers_of(model: Mapping[str, Any]) -> int | None:
    """Return the number of layers of an option of the model group, None where no file here says it.

    Whether its class runs parts of itself is known once it is loaded.
    """
    config = hub.config_of(model) or {}
    told = [config.get(name) for name in ("num_hidden_layers", "n_layer")]
    return next((one for one in told if isinstance(one, int)), None)


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
    model.layers = _proven(model, layer_by_layer(inner))
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
    tokens_BT = _probe(model)
    with torch.no_grad():
        plain = model.inner(input_ids=tokens_BT, use_cache=False).logits[0].float()
    store, parts = model.new_store(1, _PROBE + 1), []
    for window in (range(5), range(5, _PROBE)):
        places = torch.tensor([list(window)], device=model.device)
        request = ForwardRequest(tokens_BT[:, places[0]], positions_BT=places, kv=store, end=window.stop)
        parts.append(model.forward(request)[0].float())
    require_close(folder, model.inner, torch.cat(parts), plain)


def _proven(model: CausalModel, layers: LayerByLayer | None) -> LayerByLayer | None:
    """Return the layers where they add up to what the class itself says of a short text, None where they do not."""
    if layers is None:
        return None
    tokens_BT = _probe(model)
    made = CausalModel(model.inner, model.spec, layers)
    try:
        logits = [made.forward(ForwardRequest(tokens_BT, part=part)).float() for part in (None, Part())]
    # Whatever modules raise that are called in another way than their class does.
    except Exception:
        return None
    return layers if _far(model.inner, logits[1], logits[0]) is None else None


def require_close(folder: Path, inner: Any, windows_TV: Tensor, plain_TV: Tensor) -> None:
    """Raise DataError where logits computed through a store are not those of the class's own plain forward."""
    if (difference := _far(inner, windows_TV, plain_TV)) is not None:
        raise DataError(
            f"{folder}: {type(inner).__name__} gives other logits window by window than at once (by "
            f"{difference:.2g}); its attention or positions are not those of a plain causal model"
        )


def _probe(model: CausalModel) -> Tensor:
    return (torch.arange(_PROBE, device=model.device) * 7 % model.spec.vocab_size)[None]


def _far(inner: Any, logits: Tensor, plain: Tensor) -> float | None:
    """Return by how much logits differ from plain ones, None where it is no more than rounding may be."""
    allowed = _TOLERANCE.get(inner.dtype, _LOW_PRECISION_TOLERANCE) * float(plain.std())
    difference = float((logits - plain).abs().max())
    return None if difference <= allowed else difference
