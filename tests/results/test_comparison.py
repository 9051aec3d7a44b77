"""Every setting is compared with its own baseline and with nothing else."""

from pathlib import Path

import pytest

from harness.results.comparison import Comparison, baseline_of, compare, load
from harness.results.store import Store
from harness.results.table import notes
from tests.results.factory import add_run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with one-token-per-step `llada` on two tasks and `fast`, which loses one answer in four."""
    store = Store(root=tmp_path)
    for task in ("copy", "sort"):
        add_run(store, f"base-{task}", task=task)
        add_run(store, f"fast-{task}", task=task, method="fast", setting="fast", nfe=[1, 1], query_tokens=[16, 16],
                latency_s=[0.1, 0.1], correct=[True, task == "copy"])  # fmt: skip
    return store


def _compare(store: Store, *run_ids: str, per_task: bool = False) -> dict[str, Comparison]:
    ids = run_ids or tuple(store.read("runs")["run_id"].to_pylist())
    made = compare(load(store, ids), per_task=per_task)
    return {f"{one.setting} {one.tasks[0]}" if per_task else one.setting: one for one in made}


def test_speedups_are_ratios_to_the_baseline(store: Store) -> None:
    """Guards each ratio by its own quantity: 4 calls to 1, 32 query tokens to 16, 0.4 s to 0.1 s."""
    against = _compare(store)["fast"].against
    assert against is not None and against.baseline == "llada"
    ratios = (against.speedup_nfe, against.speedup_efe, against.speedup_wall)
    assert [ratio.value for ratio in ratios if ratio] == pytest.approx([4, 2, 4])


def test_accuracy_is_compared_sample_by_sample(store: Store) -> None:
    """Guards the pairing of answers: one of four lost, none gained; 0.75 = mean of 1 and 0.5."""
    fast = _compare(store)["fast"]
    assert fast.against is not None
    assert (fast.n, fast.accuracy.value) == (4, 0.75)
    assert (fast.against.lost, fast.against.gained, fast.against.accuracy_difference.value) == (1, 0, -0.25)
    assert fast.against.p_value == pytest.approx(0.5)


def test_tasks_are_kept_apart_when_asked(store: Store) -> None:
    """Guards against a per-task row that mixes tasks or compares with another task's baseline."""
    by_task = _compare(store, per_task=True)
    assert {name: one.accuracy.value for name, one in by_task.items() if one.method == "fast"} == {
        "fast copy": 1.0,
        "fast sort": 0.5,
    }


def test_a_baseline_is_its_own_baseline(store: Store) -> None:
    """Guards against rows without a speedup for the baseline itself, whose ratios are exactly 1."""
    against = _compare(store)["llada"].against
    assert against is not None
    assert (against.speedup_wall, against.length_change) == (against.speedup_nfe, 0)
    assert against.speedup_nfe.low == against.speedup_nfe.high == 1


@pytest.mark.parametrize(
    "difference",
    [
        {"model": "other"},
        {"family": "autoregressive", "method": "ar_sample"},
        {"template": "terse"},
        {"seed": 1},
        {"gen_length": 8},
        {"batch_size": 2},
        {"batching": "continuous"},
        {"device": "cuda"},
        {"dtype": "bfloat16"},
        {"measure": "counts"},
    ],
)
def test_runs_under_other_conditions_are_not_compared(store: Store, difference: dict[str, object]) -> None:
    """Guards against a speedup over another model, machine, length or template."""
    add_run(store, "x", **({"method": "fast", "setting": "fast"} | difference))  # type: ignore[arg-type]
    measured = load(store, ["base-copy", "base-sort", "x"])
    assert baseline_of(measured[-1], measured) is None


def test_runs_on_other_samples_are_not_compared(store: Store) -> None:
    """Guards against a baseline with another number of samples, or with other prompts under the same names."""
    add_run(store, "x", method="fast", setting="fast", correct=[True], nfe=[1], latency_s=[0.1])
    measured = load(store, ["base-copy", "x"])
    assert baseline_of(measured[-1], measured) is None


def test_a_parallel_run_of_the_baseline_method_is_no_baseline(store: Store) -> None:
    """Guards against speedups over `llada` with fewer steps, which understate every method."""
    add_run(store, "quick", setting="llada steps=2", nfe=[2, 2])
    quick = _compare(store, "quick")["llada steps=2"]
    assert quick.against is None
    against = _compare(store, "quick", "base-copy")["llada steps=2"].against
    assert against is not None and against.speedup_nfe.value == 2


def test_the_baseline_with_the_fewest_changed_knobs_is_taken(store: Store) -> None:
    """Guards the choice where several runs decode one token per step."""
    add_run(store, "hot", setting="llada temperature=1.0", nfe=[4, 4])
    measured = load(store, ["hot", "base-copy", "fast-copy"])
    found = baseline_of(measured[-1], measured)
    assert found is not None and found.run["run_id"] == "base-copy"


def test_one_missing_baseline_leaves_the_average_without_a_speedup(store: Store) -> None:
    """Guards against an average speedup over fewer tasks than the accuracy beside it."""
    assert _compare(store, "base-copy", "fast-copy", "fast-sort")["fast"].against is None


def test_counted_runs_have_no_wall_speedup(store: Store) -> None:
    """Guards against a ratio of unknown times shown as a number."""
    for run_id, setting in (("a", "llada"), ("b", "fast")):
        add_run(store, run_id, setting=setting, method=setting, measure="counts", latency_s=[None, None])  # type: ignore[list-item]
    fast = _compare(store, "a", "b")["fast"]
    assert fast.latency_s is None and fast.against is not None and fast.against.speedup_wall is None


def test_a_condition_that_varies_is_part_of_the_setting(store: Store) -> None:
    """Guards against a mean over batch sizes."""
    add_run(store, "b8", batch_size=8)
    assert set(_compare(store, "base-copy", "b8")) == {"llada batch_size=1", "llada batch_size=8"}


def test_the_worst_template_is_kept(store: Store) -> None:
    """Guards against an average that hides a template under which a method fails."""
    add_run(store, "terse", template="terse", correct=[False, True])
    llada = _compare(store, "base-copy", "terse")["llada"]
    assert (llada.accuracy.value, llada.worst_template) == (0.75, 0.5)


def test_samples_without_end_are_counted_below_the_table(store: Store) -> None:
    """Guards a table against a method whose rows do not finish: it says how many, of which setting."""
    add_run(store, "stuck-copy", method="stuck", setting="stuck", unfinished=[1])
    made = _compare(store)
    assert {name: one.unfinished for name, one in made.items()} == {"llada": 0, "fast": 0, "stuck": 1}
    assert "samples that used up their model calls and were ended as they stood: tiny stuck 1 of 2" in notes(
        list(made.values())
    )
    assert not any("used up" in note for note in notes([made["llada"], made["fast"]]))


def _seeds(store: Store, correct: dict[str, dict[int, list[bool]]]) -> dict[str, Comparison]:
    """Store settings with their verdicts by seed, and compare them all."""
    for setting, by_seed in correct.items():
        for seed, verdicts in by_seed.items():
            n, calls = len(verdicts), 4 if setting == "llada" else 1
            add_run(store, f"{setting}-{seed}", setting=setting, method=setting, seed=seed, correct=verdicts,
                    nfe=[calls] * n, latency_s=[0.1] * n)  # fmt: skip
    return _compare(store, *(f"{name}-{seed}" for name, by_seed in correct.items() for seed in by_seed))


def test_seeds_are_no_further_samples(tmp_path: Path) -> None:
    """Guards n, intervals and tests: the same answers under eight seeds say what they say under one."""
    right, wrong = [True] * 20, [True] * 14 + [False] * 6
    one = _seeds(Store(root=tmp_path / "one"), {"llada": {0: right}, "fast": {0: wrong}})["fast"]
    eight = {seed: right for seed in range(8)}, {seed: wrong for seed in range(8)}
    many = _seeds(Store(root=tmp_path / "many"), {"llada": eight[0], "fast": eight[1]})["fast"]
    assert one.against is not None and many.against is not None
    assert (many.n, many.accuracy) == (one.n, one.accuracy)
    assert many.against.accuracy_difference == one.against.accuracy_difference
    assert (many.against.lost, many.against.p_value) == (6, one.against.p_value)
    assert (one.seeds, many.seeds and many.seeds.deviation) == (None, 0)


def test_a_sample_is_the_mean_of_its_seeds(tmp_path: Path) -> None:
    """Guards pairing by sample: of four, two are lost under one of two seeds, none is gained."""
    base = [True, True, True, False]
    found = _seeds(Store(root=tmp_path), {
        "llada": {1: base, 2: base},
        "fast": {1: [True, True, False, False], 2: [False, True, True, False]},
    })["fast"]  # fmt: skip
    assert found.against is not None
    assert (found.n, found.accuracy.value, found.against.lost, found.against.gained) == (4, 0.5, 2, 0)
    assert found.seeds is not None and (found.seeds.seeds, found.seeds.deviation) == (2, 0)


def test_seeds_spread(tmp_path: Path) -> None:
    """Guards the spread by hand: accuracies 1, 0.5 and 0 have mean 0.5 and deviation 0.5."""
    rows = {0: [True, True], 1: [True, False], 2: [False, False]}
    found = _seeds(Store(root=tmp_path), {"llada": rows})["llada"]
    assert found.seeds is not None
    assert (found.seeds.mean.value, found.seeds.deviation, found.seeds.largest) == (0.5, 0.5, 1)
    assert any("50.0 ± 50.0 (0.0 to 100.0) of 3" in line for line in notes([found]))


def test_p_values_are_adjusted_among_all_that_share_a_baseline(tmp_path: Path) -> None:
    """Guards the family: 6 lost of 8 are p = 2 / 64 less half of it, times the number of settings, of which
    the baseline itself is none.
    """
    wrong = {name: {0: [False] * 6 + [True] * 2} for name in ("a", "b", "c")}
    found = _seeds(Store(root=tmp_path), {"llada": {0: [True] * 8}, **wrong})
    against = [found[name].against for name in ("a", "b", "c")]
    assert [one.p_value for one in against if one] == [1 / 64] * 3
    assert [one.holm_p for one in against if one] == [3 / 64] * 3
    assert found["llada"].against is not None and found["llada"].against.holm_p is None
