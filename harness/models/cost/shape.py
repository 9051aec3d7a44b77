"""What of a model's shape costs anything: weights that a token passes, keys and values that it leaves."""

from dataclasses import dataclass
from math import log

from harness.models.transformer import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The experts of some layers: `count` in each, of which a token passes `active`, of `weights` weights each."""

    layers: int
    count: int
    active: int
    weights: int

    def touched(self, tokens: float) -> float:
        """Return the share of a layer's experts that some of `tokens` tokens pass, routed evenly."""
        return 1 - (1 - self.active / self.count) ** tokens

    @property
    def saturated(self) -> float:
        """The tokens from which on no number tells the share from all."""
        missed = 1 - self.active / self.count
        return log(2.0**-54) / log(missed) if missed > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder by what its calls cost; embeddings are looked up and cost nothing.

    Of a layer: `projection_weights` around attention, `core_width` channels in which queries meet keys (heads x their
    width), `cache_width` elements of K and V that a token leaves. Of all layers: `feed_forward_weights` that every
    token passes, experts apart. `head_weights` map a position to logits.
    """

    layers: int
    projection_weights: int
    core_width: int
    cache_width: int
    feed_forward_weights: int
    head_weights: int = 0
    mixture: Mixture | None = None
    weight_bytes: float = 2
    cache_bytes: float = 2

    @property
    def linear_weights(self) -> int:
        """Weights of all layers that one token passes."""
        mixture = self.mixture
        experts = mixture.layers * mixture.active * mixture.weights if mixture else 0
        return self.layers * self.projection_weights + self.feed_forward_weights + experts

    def read_weights(self, tokens: float) -> float:
        """Weights of all layers that a call with `tokens` tokens reads, each once."""
        mixture = self.mixture
        experts = mixture.layers * mixture.count * mixture.weights * mixture.touched(tokens) if mixture else 0
        return self.layers * self.projection_weights + self.feed_forward_weights + experts

    @property
    def cache_bytes_per_token(self) -> float:
        """Bytes of K and V that a token leaves in all layers."""
        return self.layers * self.cache_width * self.cache_bytes


def shape_of(config: TransformerConfig, *, bytes_per_value: float = 2) -> ModelShape:
    """Return the shape of an in-tree transformer, norms left out; weights, keys and values are stored alike."""
    c, experts = config, config.experts
    dense, mixture, shared = c.layers, None, 0
    if experts is not None:
        dense = len(experts.dense_layers)
        mixture = Mixture(
            layers=c.layers - dense, count=experts.count, active=experts.active, weights=3 * c.width * experts.width
        )
        shared = mixture.layers * (3 * c.width * experts.shared_width + c.width * experts.count)
    return ModelShape(
        layers=c.layers,
        projection_weights=2 * c.width * c.head_width * (c.heads + c.kv_heads),
        core_width=c.heads * c.head_width,
        cache_width=2 * c.kv_heads * c.head_width,
        feed_forward_weights=dense * 3 * c.width * c.feed_forward_width + shared,
        head_weights=c.width * c.vocab_size,
        mixture=mixture,
        weight_bytes=bytes_per_value,
        cache_bytes=bytes_per_value,
    )
