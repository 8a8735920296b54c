"""A real browser without a network, for the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    *("--disable-dev-shm-usage", "--no-first-run"),
]

needed = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def launched() -> Iterator[Browser]:
    """The browser, until the tests of a file are done."""
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Opened:
    """A page that was opened from the disk; what it asks for and complains of is noted.

    Attributes:
      page: Playwright's.
      requests: addresses that it asked for.
      complaints: errors and warnings of its console.
    """

    def __init__(
        self, browser: Browser, file: Path, address: str = "", width: int = 1280, **options: Any
    ) -> None:
        """Opens a file with the network off.

        Args:
          browser: to open it in.
          file: HTML.
          address: after the file's, from # on.
          width: of the window, in pixels.
          **options: of Playwright's contexts.
        """
        size = {"width": width, "height": 900}
        self.context = browser.new_context(viewport=size, offline=True, **options)  # type: ignore[arg-type]
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda asked: self.requests.append(asked.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._heard)
        self.page.goto(file.as_uri() + address)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def close(self) -> None:
        """Closes it; fails if it asked for anything but itself, or complained."""
        outside = [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]
        files = {url.partition("#")[0] for url in self.requests if url.startswith("file:")}
        self.context.close()
        assert not outside and len(files) == 1, self.requests
        assert not self.complaints, self.complaints

    def text(self, selector: str) -> str:
        """What is to be read in an element.

        Args:
          selector: of the first such element.
        """
        return self.page.locator(selector).first.inner_text()

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return self.page.evaluate("document.documentElement.scrollWidth - innerWidth")

    def saved(self, selector: str, folder: Path) -> Path:
        """The file that a click on an element downloads.

        Args:
          selector: of the element.
          folder: for the file.
        """
        with self.page.expect_download() as waiting:
            self.page.click(selector)
        file = folder / waiting.value.suggested_filename
        waiting.value.save_as(file)
        return file
