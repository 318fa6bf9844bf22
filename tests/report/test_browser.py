"""report.html in headless Chromium: no network, no console message, fits a phone and a desktop."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mocosfl.report.__main__ import main
from mocosfl.runs.folder import RunFolder
from tests.support.configurations import changed
from tests.support.written_runs import add_evaluations

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WINDOWS = {"phone": (390, 844), "desktop": (1440, 900)}
UNSHOWN = """() => [...document.querySelectorAll('img, svg')].filter(e => {
    const box = e.getBoundingClientRect();
    return !(box.width > 0 && box.height > 0 && (e.tagName != 'IMG' || e.naturalWidth > 0));
}).map(e => e.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        if os.environ.get("MOCOSFL_REQUIRE_BROWSER") == "1":
            pytest.fail("MOCOSFL_REQUIRE_BROWSER=1, but there is no Chromium; apt install chromium")
        pytest.skip("no Chromium here: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def reports(quick_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the page of a run, and that of a sweep of three of which one has failed."""
    root = tmp_path_factory.mktemp("reports")
    for number in range(3):
        folder = RunFolder(root / "sweep" / f"run_{number}_with_a_name_{'that_is_long_' * 8}")
        shutil.copytree(quick_run.path, folder.path)
        folder.save_config(changed(folder.load_config(), {"clients.num_clients": 100 + number}))
        add_evaluations(folder)
    folder.finished.unlink()
    folder.failed.write_text("RuntimeError: " + "no_room_for_this_word_" * 20)
    main([str(root / "sweep")])
    run = next(path for path in (root / "sweep").iterdir() if path.is_dir())
    main([str(run)])
    return {"run": run / "report.html", "sweep": root / "sweep" / "report.html"}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", ["run", "sweep"])
def test_page_opens_alone_and_fits(browser: Any, reports: dict[str, Path], name: str, window: str):
    width, height = WINDOWS[window]
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True)
    page = context.new_page()
    address = reports[name].as_uri()
    requests: list[str] = []
    told: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.route("**/*", lambda r: r.continue_() if r.request.url == address else r.abort())
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert [r for r in requests if r != address and not r.startswith("data:")] == []
    assert told == []
    scrolled, inner = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert scrolled <= inner == width
    assert page.evaluate(UNSHOWN) == []
    assert page.evaluate("document.querySelectorAll('img, svg').length") > 10
    context.close()
