"""A page of results, opened in the Chromium of this machine."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def require_browser() -> None:
    """Skip what needs a browser, or the package that drives it, where there is none."""
    pytest.importorskip("playwright")
    if CHROMIUM is None:
        pytest.skip(
            "no chromium on this machine; apt-get install chromium, or name one in CHROMIUM", allow_module_level=True
        )


@contextmanager
def browser() -> Iterator[Any]:
    """Yield a browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--disable-gpu"], timeout=120_000)
        try:
            yield started
        finally:
            started.close()


_GO = """(place) => {
  delete document.documentElement.dataset.shown;
  if (location.hash === place) window.dispatchEvent(new Event("hashchange"));
  else location.hash = place;
}"""


class Opened:
    """A page of a file, and what went wrong in it: errors, and requests of anything but itself."""

    def __init__(self, page: Any, file: Path) -> None:
        self.page, self.file, self.wrong = page, file, []
        page.set_default_timeout(100_000)
        page.set_default_navigation_timeout(180_000)
        page.on("console", lambda said: self._say(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self._say(str(error)))
        page.on("dialog", lambda dialog: (self._say(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda asked: self._asked(asked.url))

    def _say(self, text: str) -> None:
        self.wrong.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.file.as_uri(), "data:", "blob:")):
            self._say(f"asked for {url}")

    def go(self, place: str = "#board") -> Any:
        """Show a place of the page, which is opened once, and return the page when it is there."""
        if self.page.url == "about:blank":
            self.page.goto(f"{self.file.as_uri()}{place}")
        else:
            self.page.evaluate(_GO, place)
        self.page.wait_for_selector(f"html[data-shown={json.dumps(place)}]", state="attached")
        return self.page
