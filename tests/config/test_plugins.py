"""Parts of one's own stand beside ours: found, shown, named, run, and refused in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.config import plugins
from harness.config.catalogue import names, origin, read
from harness.config.composition import compose
from harness.config.interface import INTERFACE
from harness.config.job import resolve
from harness.config.plugin_folders import VARIABLE
from harness.engine.shared.policy import REGISTRY
from tests.config.plugin import RULE, stored, write
from tests.conftest import RunDecbench

RUN = ("run", "model=thin", "method=mean", "task=echo", "results_dir=store")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the plug-in into a folder of its own; digests are remembered apart."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return write(tmp_path / "mine")


@pytest.mark.parametrize(
    "way",
    [
        "--config-dir {folder}",
        "--config-dir={folder}/conf",
        "-cd {folder}",
        "hydra.searchpath=[file://{folder}/conf]",
        'hydra.searchpath=["{folder}"]',
        VARIABLE,
    ],
)
def test_a_plug_in_is_named_in_every_usual_way(
    way: str, folder: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Guards all that a folder adds, in one run: a policy, a method, a task and a model, from any current folder."""
    if way == VARIABLE:
        monkeypatch.setenv(VARIABLE, f"{tmp_path / 'conf'}{os.pathsep}{folder}")
        (tmp_path / "conf" / "method").mkdir(parents=True)
    process = call_decbench(*RUN, *way.format(folder=folder).split() * (way != VARIABLE))
    assert (process.returncode, process.stderr) == (0, "")
    (row,) = stored(tmp_path / "store")
    assert (row["status"], row["model"], row["method"], row["task"]) == ("ok", "thin", "mean", "echo")
    assert row["accuracy"] == 1 and row["nfe"] > 1


def test_a_folder_that_is_not_named_any_more_has_left_nothing(folder: Path, call_decbench: RunDecbench):
    """Guards programs that run several commands: names, policies and modules go with their folder."""
    there = [["list", "policies", "--json"], [*RUN]]
    for words in there:
        assert call_decbench(*words, "--config-dir", str(folder)).returncode == 0
    assert "mean" not in names("method") and ("method/selector", "mean") not in REGISTRY
    assert str(folder) not in sys.path and "my_rule" not in sys.modules
    assert "no such method; did you mean" in call_decbench(*RUN[:1], "method=mean").stderr
    unknown = call_decbench("run", "method=threshold", "method/selector=meen")
    assert unknown.stderr.startswith("decbench run: method/selector=meen: no such selector; ")


def test_a_plug_in_is_listed_and_says_where_it_is_from(folder: Path, call_decbench: RunDecbench):
    """Guards list, show, nearest names and the README's table, for all kinds of parts."""
    given = ("--config-dir", str(folder))
    for kind, name in (("methods", "mean"), ("tasks", "echo"), ("models", "thin"), ("protocols", "mine"),
                       ("experiments", "means"), ("policies", "mean")):  # fmt: skip
        found = json.loads(call_decbench("list", kind, "--json", *given).stdout)
        assert [one.get("from") for one in found if one["name"] == name] == [str(folder)]
        assert {one.get("from") for one in found} == {None, str(folder)} and len(found) > 3
    assert f"| `mean` ({folder}) | diffusion |" in call_decbench("list", "methods", "--markdown", *given).stdout
    shown = call_decbench("show", "method=slow_mean", *given).stdout
    assert f"from: {folder} ({folder}/conf/method/slow_mean.yaml)" in shown
    assert [line.split() for line in shown.splitlines() if "weight" in line] == [
        ["method.weight", "float", "2.0", "2.0"]
    ]
    assert call_decbench("show", "method=mena", *given).stderr.endswith("no such method; did you mean mean?\n")


def test_a_plug_in_stands_in_the_table_of_compatibility(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call_decbench: RunDecbench
):
    """Guards rows and columns of the table: a decoder, and a cache that gives its reasons."""
    from harness.config import matrix

    cache = RULE.replace("method/selector", "method/cache").replace("Mean", "Whole").replace("my_helper", "my_helper")
    write(folder, **{"my_cache.py": cache.replace('"mean"', '"whole"')})
    monkeypatch.setenv(VARIABLE, str(folder))
    monkeypatch.setattr(matrix, "names", lambda group: ["mean", "threshold"])
    table = matrix.markdown("method", matrix.combinations("cache"))
    assert f"| `mean` ({folder}) | " in table and f"| `whole` ({folder}) |" in table and "| `threshold` | " in table


def test_a_stored_run_is_made_anew_after_an_edit(folder: Path, call_decbench: RunDecbench, tmp_path: Path):
    """Guards against old numbers: the rule, what it imports, the task and the loader count, words about them do not."""

    def run() -> int:
        assert call_decbench(*RUN, "--config-dir", str(folder)).returncode == 0
        return len(stored(tmp_path / "store"))

    assert [run(), run()] == [1, 1]
    edits = {
        "my_rule.py": ("self.weight *", "self.weight * 0.5 *"),
        "my_helper.py": ("1.0", "0.9"),
        "my_task.py": ("bool(text)", "not text"),
        "my_model.py": ("kind=kind", "kind=kind, seed=1"),
    }
    for number, (name, (old, new)) in enumerate(edits.items(), 2):
        file = folder / name
        file.write_text(file.read_text().replace(old, new))
        assert [run(), run()] == [number, number], name
    (folder / "my_rule.py").write_text((folder / "my_rule.py").read_text().replace("Closes what", "It closes what"))
    assert run() == 5
    rows = stored(tmp_path / "store")
    assert len({row["setting_id"] for row in rows}) == 1 and rows[-1]["nfe"] < rows[0]["nfe"]


BROKEN = {
    "my_rule.py": ("def broken(:\n@policy(", "my_rule.py: SyntaxError"),
    "my_other.py": ("from nowhere import x\n@policy('a', 'b')\nclass A: ...\n", "my_other.py: ModuleNotF"),
    "my_third.py": ("raise SystemExit(3)\n@policy('a', 'b')\nclass A: ...\n", "my_third.py: SystemExit: 3 (line 1)"),
    "random.py": (RULE, "random.py: another module random is imported in its place"),
    "my_slot.py": (RULE.replace("/selector", "/selektor"), "no such slot; did you mean method/selector?"),
    "my_clash.py": (RULE.replace('"mean"', '"threshold"'), "threshold is methods.diffusion.fast_dllm.Threshold"),
    "conf/method/torn.yaml": ("models: [", "torn.yaml: cannot be read (while parsing"),
    "conf/method/bare.yaml": ("family: diffusion", "bare.yaml: lacks models"),
    "conf/method/word.yaml": ("family: diffusion\nmodels: causal", "word.yaml: models: causal: must be a list"),
    "conf/method/kind.yaml": ("family: difusion\nmodels: [causal]", "family: difusion: must be one of autoregressive,"),
    "conf/method/name.yaml": ("name: game\nfamily: diffusion\nmodels: [causal]", "name: game: the file's"),
    "conf/method/base.yaml": ("defaults: [bse]", "base.yaml: defaults: bse: there is no method/bse.yaml"),
    "conf/method/list.yaml": ("- 1", "list.yaml: holds no keys"),
    "conf/method/threshold.yaml": ("family: diffusion", "threshold.yaml: the name is taken by"),
    "conf/model/thick.yaml": ("kind: masked_diffusion", "thick.yaml: lacks loader; lacks tokenizer; lacks max_length"),
    "conf/task/bare.yaml": ("gen_length: 3", "bare.yaml: lacks _target_"),
    "plugin.yaml": ("interface: 7", f"interface: 7: this decbench has interface {INTERFACE}; update it"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_one_line_and_harms_nothing_else(name: str, folder: Path, call_decbench: RunDecbench):
    """Guards everybody else's runs against one broken file: it is named, and so is what is wrong with it."""
    text, said = BROKEN[name]
    write(folder, **{name: text})
    process = call_decbench("show", "method=llada", "--config-dir", str(folder))
    (line,) = process.stderr.splitlines()
    assert process.returncode == 0 and line.startswith(f"decbench: left out: {folder}") and said in line


ASKED = {
    "method=mean": ({"my_rule.py": "def broken(:\n@policy("}, "method/selector/mean"),
    "method=bare": ({"conf/method/bare.yaml": "family: diffusion"}, "bare: lacks models ("),
    "method=threshold": ({"conf/method/threshold.yaml": "family: diffusion"}, "threshold: the name is taken by"),
    "task=echo": ({"my_task.py": "import nowhere"}, "task._target_=my_task.Echo: "),
    "task=echo ": ({"my_task.py": "x = 1\nclass Ecko: ...\n"}, "my_task.py has no Echo; did you mean Ecko?"),
    "task=echo  ": ({"my_task.py": "class Echo: ...\n"}, "must be a dataclass"),
    "model=thin": ({"my_model.py": "1 / 0\n"}, "my_model.py: ZeroDivisionError: division by zero (line 1)"),
    "method=mean method.selector._target_=nowhere.Mean": ({}, "there is no module nowhere; is its folder"),
    "method=half": (
        {"conf/method/half.yaml": "defaults: [window: sliding]\nfamily: diffusion\nmodels: [masked_diffusion]\n"
                                  "window: {length: 8}"},
        "method=half: its defaults choose no scorer, selector",
    ),
    "method=idle": (
        {"my_idle.py": RULE.replace("__call__", "choose").replace('"mean"', '"idle"'),
         "conf/method/idle.yaml": "defaults: [mean, override selector: idle]"},
        "method.selector: Mean lacks __call__ of Selector (",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("asked", ASKED)
def test_asking_for_what_is_broken_is_refused(asked: str, folder: Path, call_decbench: RunDecbench):
    """Guards the message where a broken part is what was asked for, and that nothing runs in its place."""
    files, said = ASKED[asked]
    write(folder, **files)
    process = call_decbench("run", "model=thin", "task=echo", *asked.split(), "--config-dir", str(folder))
    assert process.returncode == 2 and said in process.stderr.splitlines()[-1], process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--config-dir nowhere", "decbench: --config-dir=nowhere: no such folder; "),
        ("--config-dir", "decbench: --config-dir: names no folder; "),
        ("hydra.searchpath=nowhere", "must be a list of folders; write hydra.searchpath=[DIR]"),
        ("hydra.searchpath=[pkg://nowhere.conf]", "hydra.searchpath=pkg://nowhere.conf: no such folder; "),
    ],
)
def test_a_folder_that_is_none_is_refused(words: str, said: str, call_decbench: RunDecbench):
    """Guards against running without the parts that were asked for."""
    process = call_decbench("list", "methods", *words.split())
    assert process.returncode == 2 and said in process.stderr and len(process.stderr.splitlines()) == 1


def test_a_plug_in_may_name_itself_and_its_interface(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards the name that tables show, and the version by which a plug-in is left out."""
    write(folder, **{"plugin.yaml": f"name: means\ninterface: {INTERFACE}"})
    monkeypatch.setenv(VARIABLE, str(folder))
    assert (
        origin("method", "mean") == "means"
        and read("method", "slow_mean")["models"] == read("method", "mean")["models"]
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("from harness.engine.policy import policy", "harness.engine.shared.policy"),
        ("from harness.engine.diffusion import decode", "harness.engine.diffusion.loop"),
    ],
)
def test_a_module_that_has_moved_is_named(line: str, said: str, folder: Path, call_decbench: RunDecbench):
    """Guards plug-ins of the first interface, which import the engine's modules from where they were."""
    rule = folder / "my_rule.py"
    rule.write_text(f"{line}\n{rule.read_text()}")
    process = call_decbench("check", "method=mean", f"--config-dir={folder}")
    assert process.returncode == 2 and f"since interface 2 it is {said}" in process.stderr, process.stderr


def test_an_installed_package_needs_no_naming(
    tmp_path: Path, run_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch
):
    """Guards the entry point: conf and modules inside of a package, with imports of its own, as pip installs it."""
    package = write(tmp_path / "site" / "my_means")
    (package / "__init__.py").write_text(f"INTERFACE = {INTERFACE}\n")
    for file in [package / "my_rule.py", *package.rglob("*.yaml")]:
        file.write_text(
            file.read_text().replace("my_helper", "my_means.my_helper").replace("_target_: my", "_target_: my_means.my")
        )
    metadata = tmp_path / "site" / "my_means-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-means\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[decbench.plugins]\nmeans = my_means\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    process = run_decbench(*RUN, "--json")
    assert process.returncode == 0, process.stderr
    (row,) = stored(tmp_path / "store")
    assert (row["status"], row["method"]) == ("ok", "mean")
    assert "my_means.my_helper" in row["produced_by"]


@pytest.mark.slow
def test_a_worker_process_finds_what_the_command_was_given(folder: Path, run_decbench: RunDecbench):
    """Guards sweeps over processes: the variable hands the folder on."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    process = run_decbench(*RUN, "seed=0,1", "launch=joblib", "--config-dir", str(folder), "--json")
    runs = json.loads(process.stdout.splitlines()[-1])["runs"]
    assert [one["status"] for one in runs] == ["ok", "ok"], process.stderr


def test_a_name_is_the_same_wherever_the_folder_lies(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards stored results against a move of the folder that they were made with."""
    ids = []
    for place in (folder, shutil.copytree(folder, tmp_path / "elsewhere")):
        monkeypatch.setenv(VARIABLE, str(place))
        job = resolve(compose(["model=thin", "method=mean", "task=echo"]))
        ids.append((job.setting_id, job.run_id))
    assert ids[0] == ids[1]
    assert plugins.current()[0].code == tmp_path / "elsewhere"


def test_everything_is_in_a_wheel(tmp_path: Path):
    """Guards the files that a wheel has to carry: every option and every data file that git knows."""
    root = Path(__file__).resolve().parents[2]
    listed = subprocess.run(["git", "ls-files", "conf"], cwd=root, capture_output=True, text=True).stdout.split()
    if not listed:
        pytest.skip("no checkout")
    import tomllib

    shipped = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    assert {Path(name).suffix for name in listed} <= {".py", *(Path(pattern).suffix for pattern in shipped)}
