"""Many runs on one page."""

from pathlib import Path

import pytest

from harness.results.html.page import LARGEST_BYTES, Shown, page
from tests.browser.large_page import large_store

for package in ("jinja2", "plotly", "itables"):
    pytest.importorskip(package)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_200_runs_of_500_samples_fit(tmp_path: Path):
    """Guards the bound at the size that it was made for; seconds: `python -m tests.browser.large_page`."""
    made = page(large_store(tmp_path, 200, 500), {}, lambda config: str, Shown())
    assert len(made.html.encode()) <= LARGEST_BYTES
