"""A service on a real port in a thread of this process, and a browser that watches itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from tests.small_service import models

from isthmus.service.app import create_app
from isthmus.service.core import Places, Service
from isthmus.service.settings import ServiceSettings

PAGES = ("overview", "try", "why", "item", "cohorts", "health", "models", "privacy")
#: Seconds a page may take; neighbours on the same core are slow.
PATIENCE = 30_000
#: Notes in the page itself what must never happen.
WATCH = """
window.__broken = [];
document.addEventListener('securitypolicyviolation', e => window.__broken.push(e.violatedDirective));
"""


@contextmanager
def console(data: Path, model: Path | None = None) -> Iterator[tuple[str, Service]]:
    """Yield the address of a service and the service itself."""
    settings = ServiceSettings.model_validate({"deadline": 20.0, "warm": False, "port": 0})
    service = Service.open(Places(data, {"default": model or models() / "first"}), settings)
    server = uvicorn.Server(
        uvicorn.Config(create_app(service), port=0, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", service
    finally:
        server.should_exit = True
        thread.join()


class Watched:
    """A page of a browser, and what it did that it must not do."""

    def __init__(
        self, browser, address: str, *, width: int = 1280, light: str = "light", language: str = "en-GB"
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=light, locale=language, reduced_motion="reduce"
        )
        self.context.add_init_script(WATCH)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.address, self.said, self.dialogs, self.elsewhere = address, [], [], []
        self.page.on("console", lambda one: self.said.append(f"{one.type}: {one.text}"))
        self.page.on("pageerror", lambda one: self.said.append(f"error: {one}"))
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._request)

    def _dialog(self, dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _request(self, request) -> None:
        if not request.url.startswith((self.address, "blob:" + self.address)):
            self.elsewhere.append(request.url)

    def go(self, name: str, query: str = "") -> None:
        """Open a page of the console and wait until it is drawn; the second one without loading anew."""
        if self.page.url.startswith(self.address):
            self.page.evaluate("where => { location.hash = where; }", f"#/{name}{query}")
        else:
            self.page.goto(f"{self.address}/console#/{name}{query}")
        self.page.wait_for_selector(f".page-{name}")
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is awaited."""
        self.page.wait_for_selector("body:not(:has([aria-busy=true], .waiting)) h1")

    def problems(self) -> list[str]:
        """Return what went wrong; that the network said 503 is the browser's own note."""
        broken = self.page.evaluate("window.__broken")
        said = [one for one in self.said if "Failed to load resource" not in one]
        return [*said, *self.dialogs, *self.elsewhere, *broken]

    def close(self) -> None:
        """Close the page and its storage."""
        self.context.close()


#: Rules a page must keep; a call in the page returns what breaks them.
RULES = (Path(__file__).with_name("console_rules.js")).read_text(encoding="utf-8").partition("\n")[2]
