"""Published models through the command: miniatures in the published format, and what is not on the machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.config.composition import compose
from harness.results.store import Store
from harness.runs.runner import run
from tests.conftest import RunDecbench
from tests.models.public import miniature
from tests.models.public.miniature import KINDS
from tests.models.test_hf_causal import write as write_causal
from tests.models.test_hf_encoder_decoder import write as write_encoder_decoder

CHAT = ("task=list_sort", "task.renderer=chat", "task.template=own-1", "task.samples=2", "gen_length=16")


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process and every started one an empty hub cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


def decoded(tmp_path: Path, family: str, method: str) -> list[str]:
    """Write a miniature and return the overrides that decode it into `store`."""
    kind = KINDS[family]
    miniature.write(tmp_path / "mini", kind)
    block = [] if method == "dream" else [f"method.block_length={min(kind.block or 8, 16)}"]
    chosen = [f"model={kind.model}", f"model.path={tmp_path / 'mini'}", f"method={method}", *block]
    return [*chosen, *CHAT, f"results_dir={tmp_path / 'store'}"]


def require_answers(tmp_path: Path, family: str) -> None:
    """Look at what a run of `decoded` stored."""
    store, kind, end = Store(root=tmp_path / "store"), KINDS[family], len(miniature.BYTES)
    rows, run = store.read("samples").to_pylist(), store.read("runs").to_pylist()[0]
    assert json.loads(run["provenance"])["parameters"] > 0
    assert [len(row["output_ids"]) for row in rows] == [16, 16]
    assert all(miniature.mask_id(kind) not in row["output_ids"] for row in rows)
    assert all(row["prompt_tokens"] > 100 and row["nfe"] >= 1 for row in rows)
    stops = {"llada": {end + 1, end + 5}, "fast_dllm_v2": {end + 2}, "llada_moe": {end, end + 4}, "llada2": {end}}
    ends = stops.get(family, {end, end + 2})
    assert [row["finish_reason"] == "stop" for row in rows] == [bool(ends & {*row["output_ids"]}) for row in rows]


def test_a_miniature_is_decoded_by_the_command(call_decbench: RunDecbench, tmp_path: Path) -> None:
    """Guards the whole street from chat turns to a stored answer, as a user types it."""
    process = call_decbench("run", *decoded(tmp_path, "llada", "threshold"), "--json")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1])["runs"][0]["status"] == "ok"
    require_answers(tmp_path, "llada")


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *[(family, "threshold") for family in ("sdar", "llada_moe", "llada2")],
        *[("llada", "llada"), ("dream", "dream"), ("fast_dllm_v2", "factor")],
    ],
)
def test_every_family_is_decoded_end_to_end(family: str, method: str, tmp_path: Path) -> None:
    """Guards the same street for the other families and for shifted and block-causal decoding."""
    assert run(compose(decoded(tmp_path, family, method))).status == "ok"
    require_answers(tmp_path, family)


def test_any_causal_checkpoint_is_decoded_end_to_end(call_decbench: RunDecbench, tmp_path: Path) -> None:
    """Guards the autoregressive baseline of a diffusion model: the model it was made from, named as the user likes."""
    write_causal(tmp_path / "mini", "Qwen3", max_position_embeddings=2048)
    named = ("model=hf_causal", f"model.path={tmp_path / 'mini'}", "model.name=qwen_mini")
    process = call_decbench("run", *named, "method=ar_greedy", *CHAT, "results_dir=store", "--json")
    assert process.returncode == 0, process.stderr
    store = Store(root=tmp_path / "store")
    assert store.read("runs")["model"].to_pylist() == ["qwen_mini"]
    for row in store.read("samples").to_pylist():
        assert (row["nfe_prefill"], row["nfe"]) == (1, row["tokens_out"])


def test_an_encoder_decoder_is_decoded_end_to_end(tmp_path: Path) -> None:
    """Guards the encoder's share of the same street, under one of the models that are named."""
    write_encoder_decoder(tmp_path / "mini")
    named = ["model=flan_t5_large", f"model.path={tmp_path / 'mini'}", "method=ar_greedy"]
    assert run(compose([*named, *CHAT, f"results_dir={tmp_path / 'store'}"])).status == "ok"
    for row in Store(root=tmp_path / "store").read("samples").to_pylist():
        assert (row["nfe_prefill"], row["nfe"]) == (1, row["tokens_out"])


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("model", ["llada_8b_instruct", "sdar_8b", "olmoe_7b_instruct"])
def test_an_absent_checkpoint_ends_in_one_line(model: str, call_decbench: RunDecbench) -> None:
    """Guards the user without the weights: the command to get them, and nothing else."""
    process = call_decbench("run", f"model={model}", *CHAT)
    assert process.returncode == 2
    assert "hf download " in process.stderr and "model.path=" in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("arguments", ["", "model.path=nowhere", "model.hub_id=owner/other method=threshold"])
def test_an_absent_checkpoint_is_noticed_before_anything_heavy_is_imported(arguments: str) -> None:
    """Guards the second in which the answer comes."""
    code = (
        "import sys; from harness.cli import main\n"
        "code = main(['run', 'model=llada_8b_instruct', *sys.argv[1:]])\n"
        "print(code, {'torch', 'hydra', 'transformers', 'pyarrow'} & {*sys.modules})"
    )
    process = subprocess.run([sys.executable, "-c", code, *arguments.split()], capture_output=True, text=True)
    assert process.stdout.strip() == "2 set()", process.stderr
    assert arguments == "" or arguments.split()[0].split("=")[1] in process.stderr


@pytest.mark.usefixtures("no_cache")
def test_a_sweep_skips_what_is_absent(call_decbench: RunDecbench, tmp_path: Path) -> None:
    """Guards a night's sweep over models of which one was not downloaded."""
    asked = ("model=llada_8b_instruct,dream_7b_base", "on_error=record")
    process = call_decbench("run", *asked, *CHAT, "results_dir=store", "--json")
    assert process.returncode == 0, process.stderr
    rows = Store(root=tmp_path / "store").read("runs").to_pylist()
    assert [row["status"] for row in rows] == ["skipped", "skipped"]
    assert all("hf download" in row["error"] for row in rows)


@pytest.mark.usefixtures("no_cache")
def test_the_doctor_names_the_command_for_every_absent_model(call_decbench: RunDecbench) -> None:
    """Guards the overview: what can run here, and what to type for the rest."""
    findings = json.loads(call_decbench("doctor", "--json").stdout)
    models = {f["name"]: f for f in findings if f["kind"] == "model"}
    assert models["tiny_mdm"]["available"]
    assert not models["llada_8b_instruct"]["available"]
    assert models["llada_8b_instruct"]["remedy"] == "hf download GSAI-ML/LLaDA-8B-Instruct"
    assert all(f["available"] or f["remedy"] for f in models.values())
    assert {f["kind"] for f in findings} == {"machine", "extra", "model", "task", "wording"}


@pytest.mark.usefixtures("no_cache")
def test_the_doctor_finds_what_was_downloaded(call_decbench: RunDecbench, tmp_path: Path) -> None:
    """Guards against a doctor that says no to a filled cache."""
    repository = tmp_path / "hub" / "models--GSAI-ML--LLaDA-1.5"
    miniature.write(repository / "snapshots" / ("b" * 40), KINDS["llada"])
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("b" * 40)
    findings = json.loads(call_decbench("doctor", "--json").stdout)
    found = next(f for f in findings if f["name"] == "llada_1_5")
    assert found["available"] and "GB of weights" in found["detail"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=list_sort"], "use task.renderer=chat"),
        ([*CHAT, "method=ar_greedy"], "does not run on model=llada_8b_instruct"),
    ],
)
def test_what_does_not_fit_a_text_model_is_refused(
    arguments: list[str], message: str, call_decbench: RunDecbench, tmp_path: Path
) -> None:
    """Guards against symbols of the embedded models as the prompt of a text model."""
    miniature.write(tmp_path / "mini", KINDS["llada"])
    process = call_decbench("run", "model=llada_8b_instruct", f"model.path={tmp_path / 'mini'}", *arguments)
    assert process.returncode == 2
    assert message in process.stderr
