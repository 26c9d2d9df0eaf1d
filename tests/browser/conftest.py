"""A browser, and the pages of a small evaluation. Without a browser or Playwright, the tests are skipped."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from helpers.riq_items import read_lines
from rarft import steps
from rarft.completion import format_segment, render_completion

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed; pip install playwright")
    path = os.environ.get("RARFT_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    with api.sync_playwright() as playwright:
        if path is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no Chromium is installed; install the package chromium, or run `playwright install chromium`")
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        with playwright.chromium.launch(executable_path=path, args=arguments) as launched:
            yield launched


@pytest.fixture
def open_page(browser):
    """Return a function that opens a file; at the end, fail if a page logged an error or asked for a foreign file."""
    problems, pages = [], []

    def open_file(path, fragment="", width=1280, color_scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=color_scheme)
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if is_foreign(request.url) else None)
        page.goto(f"{Path(path).as_uri()}{fragment}")
        pages.append(page)
        return page

    yield open_file
    for page in pages:
        page.close()
    assert problems == []


def is_foreign(address):
    """Check whether a request leaves the file system."""
    return not address.startswith(("file:", "data:", "blob:"))


def _complete(row, skill, rng):
    """Return a completion that is right with the probability `skill`."""
    answers = (row["task_type"] == "answerable") == (rng.random() < skill)
    if not answers:
        return render_completion("I looked.", "no such moment", "a red square stays")
    start = row["segments"][0][0] if row["segments"] else 1.0
    return render_completion("I looked.", format_segment((start, start + 1.5)))


@pytest.fixture(scope="session")
def evaluation(validated, tmp_path_factory):
    """The folder of an evaluation of two candidates, with a report whose clips are embedded in `clips`."""
    folder, rng = tmp_path_factory.mktemp("evaluation"), random.Random(0)
    rows = read_lines(validated / "riq.jsonl")
    for name, skill in (("checkpoint", 0.8), ("base", 0.3)):
        lines = [json.dumps({"id": row["id"], "completion": _complete(row, skill, rng)}) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    for out, options in (("linked", {}), ("clips", {"embed_clips": 50})):
        steps.evaluate(
            None, str(validated), str(folder / out), predictions=str(folder / "checkpoint.jsonl"),
            compare=[f"base={folder}/base.jsonl"], **options,
        )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def training_runs(tmp_path_factory):
    """Two folders with logs of training."""
    folder = tmp_path_factory.mktemp("runs")
    for name, factor in (("one", 1.0), ("two", 1.5)):
        (folder / name).mkdir()
        with (folder / name / "training.jsonl").open("w") as file:
            for step in range(1, 61):
                entry = {"step": step, "reward": factor + step / 60, "kl": 0.01 * step, "time/total": 2.0}
                if step % 20 == 0:
                    entry["completions"] = {
                        "step": step, "query": f"query of step {step}", "truth": "(1.0, 2.0)",
                        "texts": [render_completion("t", f"{step}.00 to 61.00")], "rewards": {"format_reward": [1.0]},
                        "parts": {},
                    }  # fmt: skip
                file.write(json.dumps(entry) + "\n")
    return folder
