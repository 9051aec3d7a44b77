"""What is installed is what is locked, to the digest of every file."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted((ROOT / "scripts").glob("*.lock"))
ENTRY = re.compile(r"(?P<what>[^ ]+==[^ ]+( ; [^\\\n]+)?)(?P<digests>( \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def locked(lock: Path) -> Iterator[Requirement]:
    """Yield what a lock pins."""
    for entry in ENTRY.finditer(lock.read_text()):
        yield Requirement(entry["what"])


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_holds_versions_and_digests_and_nothing_else(lock: Path):
    """Guards against a package without a digest, and against an index or a folder of the machine that locked."""
    assert ENTRY.sub("", lock.read_text()) == "" and list(locked(lock))


def test_every_dependency_is_locked_as_the_project_wants_it():
    """Guards a dependency that was added, or bounded otherwise, and not locked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    pinned = {canonicalize_name(one.name): one.specifier for lock in LOCKS for one in locked(lock)}
    for one in map(Requirement, wanted):
        (pin,) = pinned[canonicalize_name(one.name)]
        assert one.specifier.contains(pin.version), f"{one}: locked as {pin.version}"


def test_what_is_installed_is_what_is_locked():
    """Guards an environment that was changed by hand; of torch the builds differ by what follows a plus."""
    packages, torch = ROOT / "scripts" / "packages.lock", ROOT / "scripts" / "torch.lock"
    pins = [*locked(packages), *(one for one in locked(torch) if one.name == "torch")]
    here = [one for one in pins if one.marker is None or one.marker.evaluate()]
    differing = {one.name: found for one in here if not one.specifier.contains(found := version(one.name))}
    assert len(here) > 100 and differing == {}
