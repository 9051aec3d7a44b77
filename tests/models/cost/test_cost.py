"""Costs by arithmetic are the published ones, to the digits that are printed, and those worked out by hand."""

import pytest

from harness.errors import ConfigError
from harness.models.cost import serving
from harness.models.cost.machine import Machine, machine, machines
from harness.models.cost.shape import Mixture, ModelShape, shape_of
from harness.models.cost.work import Call, Work, seconds_of, work_of
from harness.models.public.synthetic import SHAPES

RENTED = ("h800", "h20", "a800", "ascend_910b")
LLADA, DREAM = (shape_of(SHAPES[name]) for name in ("llada_8b_instruct", "dream_7b_instruct"))

# Model, context: bytes of K and V, operations of core, projections and feed-forward, intensity; USD of attention and
# of the rest for a million tokens on each machine (arXiv:2507.19427, Tables 2, 3, 6 and 7).
SERVED = [
    ("step_3", 8192, "2.56e+08 3.27e+10 2.07e+10 5.33e+10 128", ".048 .040 .040 .043", ".015 .040 .036 .035"),
    ("step_3", 32768, "1.02e+09 1.31e+11 2.07e+10 5.33e+10 128", ".176 .114 .120 .133", ".015 .040 .036 .035"),
    ("deepseek_v3", 8192, "2.88e+08 1.47e+11 2.28e+10 4.84e+10 512", ".054 .128 .114 .113", ".014 .036 .032 .032"),
    ("deepseek_v3", 32768, "1.15e+09 5.89e+11 2.28e+10 4.84e+10 512", ".197 .460 .409 .407", ".014 .036 .032 .032"),
    ("qwen3_235b_a22b", 8192, "7.89e+08 2.52e+10 1.34e+10 2.84e+10 32", ".135 .054 .091 .101", ".008 .021 .019 .019"),
    ("qwen3_235b_a22b", 32768, "3.15e+09 1.01e+11 1.34e+10 2.84e+10 32", ".527 .185 .338 .376", ".008 .021 .019 .019"),
    ("qwen3_32b", 8192, "1.07e+09 1.72e+10 1.21e+10 5.03e+10 16", ".181 .069 .120 .133", ".014 .038 .034 .033"),
    ("qwen3_32b", 32768, "4.29e+09 6.87e+10 1.21e+10 5.03e+10 16", ".716 .248 .455 .508", ".014 .038 .034 .033"),
]


def dollars(value: float) -> str:
    """Write a price as the tables do."""
    return f"{value:.3f}".removeprefix("0")


@pytest.mark.parametrize(("name", "context", "work", "attention", "rest"), SERVED)
def test_a_token_of_a_served_model_costs_what_is_published(
    name: str, context: int, work: str, attention: str, rest: str
):
    """Guards every factor of the formulas: grouped, latent and multi-matrix attention, and experts."""
    one = serving.per_token(serving.served()[name], context)
    counts = (one.cache_bytes, one.core_flops, one.projection_flops, one.feed_forward_flops)
    assert " ".join([*(f"{count:.2e}" for count in counts), f"{one.intensity:.0f}"]) == work
    assert " ".join(dollars(serving.attention_price(one, machine(where))) for where in RENTED) == attention
    assert " ".join(dollars(serving.feed_forward_price(one, machine(where))) for where in RENTED) == rest


@pytest.mark.parametrize(
    ("name", "context", "price"),
    [
        ("step_3", 8192, ".055"),
        ("qwen3_235b_a22b", 8192, ".062"),
        ("step_3", 32768, ".129"),
        ("qwen3_235b_a22b", 32768, ".193"),
        ("deepseek_v3", 8192, ".068"),
        ("deepseek_v3", 32768, ".211"),
    ],
)
def test_attention_and_the_rest_apart_cost_what_is_published(name: str, context: int, price: str):
    """Guards the choice of a machine for each part."""
    total, _, rest = serving.split_price(
        serving.per_token(serving.served()[name], context), {one: machine(one) for one in RENTED}
    )
    assert (dollars(total), rest) == (price, "h800")


def test_what_a_pipeline_needs_is_what_is_published():
    """Guards the least sparsity per machine, the three stages, and the batch from which arithmetic is the limit."""
    least = [serving.least_sparsity(machine(one), width=7168, layers=61) for one in RENTED]
    assert [int(one * 1000) for one in least] == [58, 7, 30, 34]
    stages = {"attention_s": 272e-6, "transfer_s": 200e-6, "feed_forward_s": 250e-6}
    assert serving.time_per_token(layers=61, **stages) == pytest.approx(50e-3, rel=5e-3)
    assert serving.batch_that_computes(machine("h800")) == pytest.approx(295.5, abs=0.1)
    assert serving.batch_that_computes(machine("h800"), sparsity=1 / 8) == pytest.approx(2364.2, abs=0.1)


def test_steps_are_not_speed():
    """Guards the worked example: 8 B weights in 16 bits, attention left out, on the numbers of a data sheet."""
    dense = ModelShape(layers=1, projection_weights=0, core_width=0, cache_width=0, feed_forward_weights=8_000_000_000)
    where = Machine(flops=9.89e14, bandwidth=4.8e12)

    def milliseconds(rows: int, query: int) -> float:
        return 1000 * seconds_of(dense, [Call.even(rows=rows, query=query, keys=query)], where)

    assert [round(milliseconds(1, query), 2) for query in (1, 512, 32)] == [3.33, 8.28, 3.33]
    assert round(milliseconds(1, 512) / milliseconds(1, 1), 1) == 2.5
    assert round(milliseconds(16, 512), 1) == 132.5 and round(milliseconds(16, 1), 2) == 3.33
    assert round(milliseconds(16, 512) / milliseconds(16, 1)) == 40


@pytest.mark.parametrize(
    ("shape", "weights", "head", "cache", "floor", "position"),
    [(LLADA, 6.979e9, 0.518e9, 524288, 3.49e-3, 0.01898e-3), (DREAM, 6.525e9, 0.545e9, 57344, 3.29e-3, 0.0179e-3)],
)
def test_published_shapes_have_the_published_weights(
    shape: ModelShape, weights: float, head: float, cache: float, floor: float, position: float
):
    """Guards how a transformer is told by its costs."""
    assert (shape.linear_weights, shape.head_weights) == (
        pytest.approx(weights, rel=1e-4),
        pytest.approx(head, rel=1e-3),
    )
    assert shape.cache_bytes_per_token == cache
    h200 = machine("h200")
    assert 2 * (weights + head) / h200.bandwidth == pytest.approx(floor, rel=2e-3)
    assert 2 * (weights + head) / h200.flops == pytest.approx(position, rel=2e-3)
    assert h200.balance == pytest.approx(184, abs=0.5)


@pytest.mark.parametrize(
    ("rows", "query", "keys", "llada", "dream"),
    [
        (1, 512, 512, 9.89, 9.30),
        (1, 1024, 1024, 20.1, 18.9),
        (1, 2048, 2048, 41.7, 38.8),
        (16, 512, 512, 158, 149),
        (64, 512, 512, 633, 595),
        (1, 32, 512, 3.55, 3.30),
        (16, 32, 512, 9.89, 9.30),
        (64, 32, 512, 39.6, 37.2),
        (1, 4, 512, 3.55, 3.30),
        (64, 4, 512, 7.48, 4.65),
    ],
)
def test_a_forward_takes_what_the_roofline_says(rows: int, query: int, keys: int, llada: float, dream: float):
    """Guards full passes and windows, bound by arithmetic and by memory: milliseconds on an H200, to three digits."""
    call, h200 = Call.even(rows=rows, query=query, keys=keys), machine("h200")
    for shape, expected in ((LLADA, llada), (DREAM, dream)):
        assert 1000 * seconds_of(shape, [call], h200) == pytest.approx(expected, rel=6e-3)


def generation(tokens_per_call: int, cache: str, rows: int) -> list[Call]:
    """Return the calls of 256 response tokens behind a prompt of 256, in blocks of 32."""
    full = Call.even(rows=rows, query=512, keys=512, head=32)
    per_block = 32 // tokens_per_call
    if cache == "none":
        return [full] * (8 * per_block)
    block = Call.even(rows=rows, query=32, keys=512)
    return [full, *[block] * (per_block - 1)] * 8


@pytest.mark.parametrize(
    ("shape", "rows", "tokens_per_call", "cache", "expected"),
    [
        (LLADA, 1, 1, "none", 108),
        (LLADA, 1, 1, "dual", 268),
        (LLADA, 1, 4, "none", 432),
        (LLADA, 1, 4, "dual", 938),
        (LLADA, 16, 1, "dual", 1126),
        (LLADA, 64, 4, "dual", 2355),
        (DREAM, 1, 1, "none", 116),
        (DREAM, 1, 1, "dual", 289),
        (DREAM, 16, 4, "dual", 2519),
    ],
)
def test_whole_generations_are_as_fast_as_the_limit(
    shape: ModelShape, rows: int, tokens_per_call: int, cache: str, expected: float
):
    """Guards sums of calls: tokens per second with and without a cache, at one and at four tokens per call."""
    seconds = seconds_of(shape, generation(tokens_per_call, cache, rows), machine("h200"))
    assert 256 * rows / seconds == pytest.approx(expected, rel=6e-3)


def test_a_mixture_reads_the_experts_that_its_tokens_choose():
    """Guards bytes of sparse models: 8 of 256 experts, routed evenly."""
    mixture = Mixture(layers=2, count=256, active=8, weights=10)
    assert [round(mixture.touched(n), 2) for n in (1, 4, 32, 128)] == [0.03, 0.12, 0.64, 0.98]
    sparse = ModelShape(
        layers=2, projection_weights=5, core_width=0, cache_width=0, feed_forward_weights=0, mixture=mixture
    )
    assert sparse.linear_weights == 2 * 5 + 2 * 8 * 10
    assert sparse.read_weights(1) == pytest.approx(2 * 5 + 2 * 8 * 10)
    assert sparse.read_weights(10_000) == pytest.approx(2 * 5 + 2 * 256 * 10)


def test_work_is_told_by_what_it_is_for():
    """Guards each term by hand: two layers, of which one runs, three tokens that meet ten keys together."""
    small = ModelShape(
        layers=2, projection_weights=7, core_width=5, cache_width=4, feed_forward_weights=6, head_weights=11
    )
    call = Call(tokens=3, pairs=10, visible=8, head=2, stored=3, depth=0.5)
    assert work_of(small, call) == Work(
        linear_flops=2 * (14 + 6) * 3 / 2,
        attention_flops=4 * 2 * 5 * 10 / 2,
        head_flops=2 * 11 * 2,
        weight_bytes=2 * ((14 + 6) / 2 + 11),
        cache_bytes=2 * 4 * 2 * (8 + 3) / 2,
    )
    assert (work_of(small, call) + Work(head_flops=1)).flops == work_of(small, call).flops + 1


def test_what_a_machine_does_not_have_is_said():
    """Guards questions about machines that are not known, and about prices that are not."""
    with pytest.raises(ConfigError, match="device=h900: no such machine is known; known: h200, "):
        machine("h900")
    with pytest.raises(ConfigError, match="no price is known of it; choose h800"):
        serving.attention_price(serving.per_token(serving.served()["step_3"], 1), machines()["h200"])
