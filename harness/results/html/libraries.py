"""The JavaScript of others that the page carries, as the packages that keep it ship it."""

from importlib.util import find_spec
from pathlib import Path

from harness.errors import MissingDependency

_FILES = {
    "plotly": ("plotly", "package_data/plotly.min.js"),
    "datatables": ("itables", "html/dt_bundle.js"),
    "datatables_style": ("itables", "html/dt_bundle.css"),
}


def library(name: str) -> str:
    """Return the text of a library; raise MissingDependency without the package that ships it."""
    package, place = _FILES[name]
    # Found, not imported, which takes a second.
    spec = find_spec(package)
    file = Path(spec.origin).parent / place if spec is not None and spec.origin else None
    if file is None or not file.is_file():
        raise MissingDependency(f"reports need {package} with its {place}: pip install 'decbench[report]'")
    return file.read_text("utf-8")
