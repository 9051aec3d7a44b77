"""DiffusionGemma in transformers' own class, which brings its sampler; its calls are counted through hooks."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from harness.engine.own_sampler import Called, Sampled, SamplesOnly
from harness.engine.shared.model import ModelKind, ModelSpec
from harness.engine.shared.randomness import seeded
from harness.engine.shared.records import Role
from harness.errors import ConfigError, DataError
from harness.models import hf_causal, hub, text
from harness.models.pool import LoadedModel

CLASS, SINCE = "DiffusionGemmaForBlockDiffusion", (5, 23)


class DiffusionGemma(SamplesOnly):
    """The class behind `harness.engine.own_sampler`: one row per `sample`.

    A call without the class's self-conditioning is not what it was trained for, and it keeps its own store.
    """

    def __init__(self, inner: Any, spec: ModelSpec) -> None:
        self.inner, self.spec = inner, spec

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.inner.device

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        gen_length: int,
        seeds: Sequence[int],
        settings: Mapping[str, object],
        called: Called,
    ) -> list[Sampled]:
        """Return what the class generates, row by row, so that none depends on another."""
        return [
            Sampled(tokens=self._sample(row, prompt, gen_length, seed, settings, called))
            for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]

    def _sample(
        self,
        row: int,
        prompt: Sequence[int],
        gen_length: int,
        seed: int,
        settings: Mapping[str, object],
        called: Called,
    ) -> list[int]:
        """Return one response; the encoder reads the prompt and every complete canvas but the last."""
        from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

        stored = 0

        def encoded(module: object, arguments: tuple, named: dict, output: object) -> None:
            nonlocal stored
            width, role = named["input_ids"].shape[1], Role.CACHE if stored else Role.PREFILL
            called(role, [row], query=width, keys=stored + (width + 1) / 2, head=0)
            stored += width

        def refined(module: object, arguments: tuple, named: dict, output: object) -> None:
            width = named["decoder_input_ids"].shape[1]
            called(Role.TARGET, [row], query=width, keys=stored + width, head=width)

        bound: Any = settings["entropy_bound"]
        chosen = {name: value for name, value in settings.items() if name != "entropy_bound"}
        hooks = [
            self.inner.model.encoder.register_forward_hook(encoded, with_kwargs=True),
            self.inner.model.decoder.register_forward_hook(refined, with_kwargs=True),
        ]
        try:
            with seeded(seed, self.device):
                made = self.inner.generate(
                    torch.tensor([list(prompt)], device=self.device),
                    max_new_tokens=gen_length,
                    sampler_config=EntropyBoundSamplerConfig(entropy_bound=bound),
                    eos_token_id=list(self.spec.stop_ids),
                    pad_token_id=self.spec.pad_id,
                    **chosen,
                )
        finally:
            for hook in hooks:
                hook.remove()
        return made.sequences[0, len(prompt) :].tolist()


def require() -> None:
    """Raise ConfigError, with the command that gets a newer one, if the installed transformers lacks the class."""
    installed = version("transformers")
    major, minor = (int(part) for part in installed.split(".")[:2])
    if (major, minor) < SINCE:
        least = ".".join(map(str, SINCE))
        raise ConfigError(f"transformers {installed} has no {CLASS}: pip install 'transformers>={least}'")


def load(
    *,
    name: str,
    hub_id: str | None,
    max_length: int,
    block_length: int,
    path: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """Load DiffusionGemma from the folder `path`, or from the filled hub cache if that is None.

    Raise ConfigError for a checkpoint or a class that is not here, and for positions that there are not; DataError
    for a checkpoint that is another one or whose canvas is not `block_length` long.
    """
    folder = hub.find(name, hub_id=hub_id, path=path)
    require()
    inner = hf_causal.read(folder, CLASS, dtype).to(device).eval().requires_grad_(False)
    config, tokenizer = inner.config.get_text_config(), text.read(folder)
    if inner.config.canvas_length != block_length:
        raise DataError(f"{folder / hub.CONFIG}: canvas_length={inner.config.canvas_length}, not {block_length}")
    hf_causal.require_positions(folder, max_length, config.max_position_embeddings)
    stop_ids = hf_causal.stops(folder, inner, tokenizer)
    spec = ModelSpec(
        name=name,
        kind=ModelKind.UNIFORM_DIFFUSION,
        vocab_size=config.vocab_size,
        max_length=max_length,
        layers=config.num_hidden_layers,
        stop_ids=stop_ids,
        pad_id=_pad_id(folder, config, tokenizer),
        block_length=block_length,
    )
    return hf_causal.loaded(folder, DiffusionGemma(inner, spec), inner, tokenizer)


def _pad_id(folder: Path, config: Any, tokenizer: Any) -> int:
    pad = tokenizer.pad_token_id if config.pad_token_id is None else config.pad_token_id
    if pad is None:
        raise DataError(f"{folder}: neither {hub.CONFIG} nor the tokenizer names a pad token")
    return pad
