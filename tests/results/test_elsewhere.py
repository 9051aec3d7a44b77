"""A store in another file system: every command works there, whatever makes files appear whole."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from harness.results.files import Folder, beside
from harness.results.migration import migrate
from harness.results.store import Store
from harness.runs.decode_batch import decode_batch
from tests.conftest import RunDecbench
from tests.results.equality import content
from tests.results.factory import add_run, run_row
from tests.results.test_migration import old_run

SWEEP = ("model=random_mdm", "method.temperature=1", "seed=0,1", "task.samples=5", "gen_length=8", "batch_size=2",
         "measure=traced", "save_every_s=0")  # fmt: skip


class Bucket(MemoryFileSystem):
    """An object store: no folders, and no writing under another name that would be copied afterwards."""

    protocol = "r2"
    store: dict[str, object] = {}  # noqa: RUF012 - as its base class has it
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("r2://").strip("/")

    def makedirs(self, path, exist_ok=False):
        raise AssertionError("would make a bucket")

    def put_file(self, lpath, rpath, **named):
        self.pipe_file(rpath, Path(lpath).read_bytes())

    def mv(self, *paths, **named):
        raise AssertionError("copies and removes")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Start a server that speaks S3, with one bucket, on this machine; return the bucket's URL."""
    moto, s3fs = pytest.importorskip("moto.server"), pytest.importorskip("s3fs")
    served = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    served.start()
    host, port = served.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "anything")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem(use_listings_cache=False).mkdir("results")
        yield "s3://results"
    s3fs.S3FileSystem.clear_instance_cache()
    served.stop()


S3 = pytest.param("s3", marks=pytest.mark.slow)


@pytest.fixture(params=["memory", "objects", S3])
def root(request: pytest.FixtureRequest, memory_files: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> str:
    """Name a store that does not exist, in a file system that is no folder."""
    if request.param == "s3":
        return f"{request.getfixturevalue('server')}/{request.node.name}".replace("[", "-").replace("]", "")
    if request.param == "objects":
        monkeypatch.setattr(Bucket, "store", {})
        fsspec.register_implementation("r2", Bucket, clobber=True)
        return "r2://bucket/a"
    return "memory://store/a"


@pytest.mark.parametrize("root", ["memory", S3], indirect=True)
def test_every_command_works_there(root: str, call_decbench: RunDecbench, tmp_path: Path):
    """Guards the whole way: a sweep, resume, tables, figures, compaction, the gate; nothing lies on the disk."""
    here = f"results_dir={root}"
    first = call_decbench("run", *SWEEP, here)
    assert first.returncode == 0, first.stderr
    assert f"results: {root}" in first.stdout and list(tmp_path.iterdir()) == []
    assert call_decbench("run", *SWEEP, here).stdout.count("taken from the store") == 2
    assert call_decbench("run", *SWEEP, f"results_dir={tmp_path / 'local'}").returncode == 0
    assert content(root) == content(tmp_path / "local")
    ids = sorted({one.run_id for one in Store(root=root).attempts()})
    assert call_decbench("results", "compare", *ids, here).returncode == 0
    assert call_decbench("tables", here).returncode == 0
    assert "6 files are now 3" in call_decbench("results", "compact", here).stdout
    assert content(root) == content(tmp_path / "local")
    assert call_decbench("trace", ids[0], "0", here).returncode == 0
    assert "1 stored, 1 new" in call_decbench("plan", *SWEEP[:2], "seed=1,2", *SWEEP[3:], here).stdout
    gate = ("gate", *SWEEP, here, f"gate.baseline={tmp_path / 'base.jsonl'}")
    assert call_decbench(*gate, "--accept", "first").returncode == call_decbench(*gate).returncode == 0
    assert "2 attempts deleted" in call_decbench("results", "delete", *ids, "--yes", here).stdout
    assert Store(root=root).attempts() == []


@pytest.mark.parametrize("root", ["objects", S3], indirect=True)
def test_a_stopped_run_goes_on_there(
    root: str, call_decbench: RunDecbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Guards finished batches: they lie in the store, too, until the run does."""
    calls = []

    def stopping(*arguments, **named):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return decode_batch(*arguments, **named)

    monkeypatch.setattr("harness.runs.street.decode_batch", stopping)
    one = [word.replace("seed=0,1", "seed=0") for word in SWEEP]
    assert call_decbench("run", *one, f"results_dir={root}").returncode == 130
    folder = Folder.at(root)
    (run_id,) = folder.folders("partial")
    assert len(folder.names(f"partial/{run_id}")) == 4 and folder.names("runs") == []
    assert call_decbench("run", *one, f"results_dir={root}").returncode == 0
    assert len(calls) == 4 and folder.folders("partial") == []
    assert call_decbench("run", *one, f"results_dir={tmp_path}").returncode == 0
    assert content(root) == content(tmp_path)


def test_attempts_are_numbered_across_writers_there(root: str):
    """Guards the number against jobs of many machines that finish together."""
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda at: Store(root=root).write(run_row(f"r{at}", setting_id="s")), range(8)))
    assert sorted(numbers) == list(range(1, 9))
    assert not [name for name in Folder.at(root).names("runs") if name.startswith(".")]


def test_figures_of_a_sweep_lie_on_this_machine(call_decbench: RunDecbench, tmp_path: Path, memory_files):
    """Guards pictures against a folder called memory:, and tells where they are."""
    pytest.importorskip("matplotlib")
    add_run(Store(root="memory://a/b"), "one", config='{"task": {"name": "copy"}}')
    drawn = call_decbench("figures", "calls", "results_dir=memory://a/b")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "results" / "memory" / "a" / "b" / "figures" / "calls.svg").is_file()
    assert beside(tmp_path) == tmp_path and beside(f"file://{tmp_path}") == tmp_path


@pytest.mark.parametrize("root", ["memory", S3], indirect=True)
def test_a_file_that_was_copied_and_not_removed_is_migrated_once(root: str, tmp_path: Path):
    """Guards migration where moving is not one step: stopped between the two, it gives no second attempt."""
    old_run(tmp_path, "a", 2)
    fs, place = fsspec.core.url_to_fs(root)
    for file in tmp_path.rglob("*.parquet"):
        for name in (file.relative_to(tmp_path), Path("migrated") / file.relative_to(tmp_path)):
            fs.pipe_file(f"{place}/{name}", file.read_bytes())
    migrate(Store(root=root))
    assert [one.number for one in Store(root=root).attempts()] == [1]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s4://bucket/x", "Protocol not known: s4; give a folder, or a URL that fsspec knows"),
        ("memory://", "names no folder; write memory://FOLDER"),
        ("http://localhost:9/x", "cannot be"),
    ],
)
def test_a_url_of_no_use_ends_in_one_line(call_decbench: RunDecbench, url: str, message: str):
    """Guards against tracebacks of other libraries, and against folders that are called like a URL."""
    for command in (["run", "model=random_mdm", "task.samples=1"], ["results", "list"]):
        said = call_decbench(*command, f"results_dir={url}")
        assert said.returncode == 2 or command[0] == "results", said
        assert not said.stderr or (url.partition("/x")[0] in said.stderr and message in said.stderr)
        assert len(said.stderr.splitlines()) <= 1
    assert not list(Path.cwd().iterdir())


def test_an_absent_package_is_named(call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch):
    """Guards the first thing that a user of an object store sees."""
    known = {"class": "gone.S3", "err": "Install s3fs to access S3"}
    monkeypatch.setitem(known_implementations, "s3far", known)
    said = call_decbench("run", "model=random_mdm", "task.samples=1", "results_dir=s3far://bucket/x")
    line = "decbench run: results_dir=s3far://bucket/x: ImportError: Install s3fs to access S3"
    assert said.returncode == 2 and said.stderr == f"{line} (pip install 'decbench[s3]' brings s3fs)\n"


def test_a_file_system_without_exclusive_creation_is_refused(root: str, monkeypatch: pytest.MonkeyPatch):
    """Guards attempts against stores that would give two of them one number."""
    real = type(Folder.at(root).fs).open

    def overwriting(self, path, mode="rb", **named):
        return real(self, path, mode.replace("x", "w"), **named)

    monkeypatch.setattr(type(Folder.at(root).fs), "open", overwriting)
    with pytest.raises(ValueError, match=r"cannot be written \(several can create one name there"):
        Store(root=root).prepare()


@pytest.mark.slow
def test_a_bucket_is_not_made(server: str, call_decbench: RunDecbench):
    """Guards the account against a bucket for every typing error."""
    said = call_decbench("run", "model=random_mdm", "task.samples=1", "results_dir=s3://rseults/x")
    assert said.returncode == 2 and len(said.stderr.splitlines()) == 1
    assert said.stderr.startswith("decbench run: results_dir=s3://rseults/x: cannot be written (")
    assert Folder.at("s3://results/x").fs.ls("") == ["results"]


@pytest.mark.slow
def test_a_server_that_does_not_answer_ends_in_one_line(server: str, call_decbench: RunDecbench, monkeypatch):
    """Guards against a traceback where a network is down."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    said = call_decbench("run", "model=random_mdm", "task.samples=1", "results_dir=s3://results/x")
    s3fs.S3FileSystem.clear_instance_cache()
    assert said.returncode == 2 and len(said.stderr.splitlines()) == 1
    assert "s3://results/x" in said.stderr and "127.0.0.1:9" in said.stderr
