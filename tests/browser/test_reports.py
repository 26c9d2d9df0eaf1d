"""Every page in a real browser: it loads without errors and requests, and its controls work."""

import json
import re
from pathlib import Path

import pytest

from helpers.riq_items import read_lines
from helpers.word_encoder import WordEncoder
from rarft import steps
from rarft.embeddings.store import ReferenceStore
from rarft.negatives.build import add_negatives
from rarft.negatives.config import NegativeSettings
from rarft.negatives.lexicon import packaged_lexicon
from rarft.reporting.training_curves import render_curves
from rarft.reporting.training_log import parse_log
from rarft.storage.location import LocalFolder

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def pages(validated, evaluation, training_runs, tmp_path_factory):
    """The path of each kind of page."""
    folder = tmp_path_factory.mktemp("pages")
    steps.score(str(evaluation / "checkpoint.jsonl"), data=str(validated), out=str(folder / "scores"))
    steps.compare_runs([str(training_runs / "one"), str(training_runs / "two")], str(folder / "runs.html"))
    entries = parse_log((training_runs / "one" / "training.jsonl").read_text())
    (folder / "training.html").write_text(render_curves(entries, "one", 60))
    return {
        "validation": validated / "report.html",
        "training": folder / "training.html",
        "runs": folder / "runs.html",
        "evaluation": evaluation / "linked" / "report.html",
        "scores": folder / "scores" / "report.html",
        "negatives": write_negatives(validated, folder),
    }


def write_negatives(validated, folder):
    """Make negatives with an encoder without weights, and return the path of their report."""

    def embed(texts):
        store = ReferenceStore(WordEncoder())
        store.add(list(texts))
        return store

    data, settings = validated / "riq.jsonl", NegativeSettings(per_item=4, duplicate=0.8)
    add_negatives(data, str(data), LocalFolder(folder / "new.jsonl"), packaged_lexicon(), settings, embed)
    return folder / "new.report.html"


@pytest.mark.parametrize("name", ["validation", "training", "runs", "evaluation", "scores", "negatives"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "light"), (1280, "dark")])
def test_page_draws_all_charts(pages, open_page, name, width, scheme):
    page = open_page(pages[name], width=width, color_scheme=scheme)
    charts = page.locator(".chart:visible")
    assert charts.count() > 0
    for chart in charts.all():
        chart.scroll_into_view_if_needed()
        chart.locator("svg").wait_for()
        assert chart.locator(".role-axis-title text").count() >= 1
        assert chart.bounding_box()["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
    assert brightness > 200 if scheme == "light" else brightness < 60


def test_labels_of_bars_are_not_cut_off(pages, open_page):
    page = open_page(pages["negatives"], width=400)
    section = page.locator("section", has=page.get_by_role("heading", name="Mismatch categories"))
    charts = section.locator(".chart")
    assert charts.count() == 2
    for chart in charts.all():
        chart.scroll_into_view_if_needed()
        chart.locator(".mark-text text").first.wait_for()
        drawing = chart.locator("svg").bounding_box()
        for label in chart.locator(".mark-text text").all():
            box = label.bounding_box()
            assert box["x"] + box["width"] <= drawing["x"] + drawing["width"]


def test_negatives_examples_are_readable_on_a_phone(pages, open_page):
    """Columns of long texts stay wide; the table scrolls within its section."""
    page = open_page(pages["negatives"], width=400)
    section = page.locator("section", has=page.get_by_role("heading", name="Examples: rules"))
    assert section.locator("th").all_text_contents()[:2] == ["query", "answerable query"]
    rows = section.locator("tbody tr")
    assert rows.count() > 0
    assert all(row.bounding_box()["height"] < 200 for row in rows.all())
    assert section.evaluate("section => section.scrollWidth > section.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_headline_on_a_phone(pages, open_page):
    """The table scrolls within its section, and the names of the metrics stay in view."""
    page = open_page(pages["evaluation"], width=400)
    section = page.locator("section", has=page.get_by_role("heading", name="Headline"))
    name = section.locator("tbody td").first
    before = name.bounding_box()["x"]
    assert section.evaluate("section => { section.scrollLeft = 40; return section.scrollLeft; }") == 40
    assert name.bounding_box()["x"] == before


def test_chart_tooltip(pages, open_page):
    page = open_page(pages["validation"])
    bar = page.locator(".chart .mark-rect path").first
    bar.hover()
    page.locator("#tooltip").wait_for()
    assert re.search(r"queries: \d+", page.locator("#tooltip").text_content())


def test_smoothing_changes_the_lines(pages, open_page):
    page = open_page(pages["runs"])
    chart = page.locator(".chart").first
    chart.locator("svg").wait_for()
    before = chart.locator("svg").inner_html()
    page.locator("#smoothing").fill("0.98")
    page.wait_for_function("([chart, before]) => chart.querySelector('svg')?.innerHTML !== before",
                           arg=[chart.element_handle(), before])  # fmt: skip


def test_completions_by_step(pages, open_page):
    page = open_page(pages["runs"])
    assert page.locator("#group-view h3").text_content() == "query of step 20"
    page.locator("#group").fill("4")
    assert page.locator("#group-name").text_content() == "40 of two"
    assert page.locator("#group-view .answer").all_text_contents()[1] == "40.00 to 61.00"


def explore(open_page, evaluation, report="linked", fragment="view=queries", **options):
    page = open_page(evaluation / report / "report.html", f"#{fragment}", **options)
    page.locator("body[data-ready]").wait_for()
    return page


def shown_queries(page):
    return [row.text_content() for row in page.locator(".row .query").all()]


def test_filters(evaluation, open_page):
    page = explore(open_page, evaluation)
    rows = read_lines(evaluation / "linked" / "predictions.jsonl")
    queries = [row["sample"]["query"] for row in rows]
    assert shown_queries(page) == queries
    outcomes = page.locator("[name=outcome]")
    name, count = re.search(r"value=\"(\w+)\">[^<]*\((\d+)\)", outcomes.inner_html()).groups()
    outcomes.select_option(name)
    assert len(shown_queries(page)) == int(count) < len(rows)
    page.locator("#reset").click()
    video = rows[3]["sample"]["video"].rsplit("/", 1)[-1]
    page.locator("[name=search]").fill(f"{video} I LOOKED")
    assert shown_queries(page) == [row["sample"]["query"] for row in rows if row["sample"]["video"].endswith(video)]
    page.locator("#reset").click()
    page.locator("[name=score]").select_option("reward")
    page.locator("[name=min]").fill("2.5")
    rewards = [sum(row["rewards"].values()) for row in rows]
    assert shown_queries(page) == [query for query, reward in zip(queries, rewards, strict=True) if reward >= 2.5]
    assert page.locator("#count").text_content() == f"{len(shown_queries(page))} of {len(rows)} queries"


def test_filters_select_a_query(evaluation, open_page):
    """The pane shows a query of the filtered list, or that there is none."""
    page = explore(open_page, evaluation)
    detail = page.locator("#detail")
    page.locator(".row").nth(2).click()
    kept = detail.locator("h2").text_content()
    page.locator("[name=search]").fill(kept)
    assert detail.locator("h2").text_content() == kept
    last = read_lines(evaluation / "linked" / "predictions.jsonl")[-1]["sample"]["id"]
    page.locator("[name=search]").fill(last)
    assert [detail.locator("h2").text_content()] == shown_queries(page)
    assert f"id={last}" in page.url
    page.locator("[name=search]").fill("nothing like this")
    assert detail.text_content() == page.locator("#space").text_content() == "No query matches the filters."
    page.locator("#reset").click()
    assert detail.locator("h2").text_content() == shown_queries(page)[0]


def test_address_outside_of_its_filters(evaluation, open_page):
    """An outcome without queries stays selected; a query that its filters leave out does not."""
    first = read_lines(evaluation / "linked" / "predictions.jsonl")[0]["sample"]["id"]
    page = explore(open_page, evaluation, fragment=f"view=queries&outcome=skipped&id={first}")
    assert page.locator("[name=outcome] option:checked").text_content().endswith("(0)")
    assert page.locator("#detail").text_content() == "No query matches the filters."
    assert first not in page.url


def test_headers_are_not_cut_off(evaluation, open_page):
    page = explore(open_page, evaluation, fragment="view=queries&score=correction+similarity")
    headers = page.locator("#head button")
    assert headers.all_text_contents()[4:] == ["correction similarity", "RA-IoU checkpoint", "RA-IoU base"]
    assert headers.evaluate_all("all => all.every(one => one.scrollWidth <= one.clientWidth)")
    assert page.locator("#rows").evaluate("rows => rows.scrollWidth <= rows.clientWidth")


def test_printing_draws_all_charts(pages, open_page):
    page = open_page(pages["evaluation"], width=400)
    page.wait_for_function("window.vegaLite")
    missing = page.locator(".chart:visible:not(:has(svg))")
    assert missing.count() > 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert missing.count() == 0


def test_sorting(evaluation, open_page):
    page = explore(open_page, evaluation)
    header = page.get_by_role("columnheader", name="query")
    header.click()
    assert shown_queries(page) == sorted(shown_queries(page))
    header.click()
    assert shown_queries(page) == sorted(shown_queries(page), reverse=True)
    assert page.get_by_role("columnheader", name="query").get_attribute("aria-sort") == "descending"


def test_keyboard_and_address(evaluation, open_page):
    page = explore(open_page, evaluation)
    queries = shown_queries(page)

    def selected():
        return page.locator("#detail h2").text_content()

    assert selected() == queries[0]
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    assert selected() == queries[2]
    page.keyboard.press("k")
    assert selected() == queries[1]
    page.keyboard.press("End")
    assert selected() == queries[-1]
    page.keyboard.press("/")
    page.keyboard.type("square")
    assert page.locator("[name=search]").input_value() == "square"
    page.keyboard.press("Escape")
    page.keyboard.press("Home")
    # The address shows the same query and the same filters.
    again = open_page(evaluation / "linked" / "report.html", page.url[page.url.index("#") :])
    again.locator("body[data-ready]").wait_for()
    assert again.locator("#detail h2").text_content() == selected()
    assert shown_queries(again) == shown_queries(page)


def test_summary_links_to_queries(evaluation, open_page):
    page = open_page(evaluation / "linked" / "report.html")
    page.locator("body[data-ready]").wait_for()
    link = page.locator("#summary td a").first
    count = int(link.text_content().split(" ")[0])
    link.click()
    assert page.locator(".row").count() == count


@pytest.mark.parametrize("report", ["linked", "clips"])
def test_segment_is_played(evaluation, open_page, report, tmp_path):
    """A click on a segment plays it, and stops at its end; with clips, the page is all that is needed."""
    if report == "clips":
        (tmp_path / "report.html").write_bytes((evaluation / "clips" / "report.html").read_bytes())
        evaluation = Path(tmp_path).parent
        report = tmp_path.name
    page = explore(open_page, evaluation, report, "view=queries&outcome=misplaced")
    if not page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=avc1.42E01E')"):
        pytest.skip("this browser does not decode H.264")
    segment = page.locator(".lane button").nth(1)  # of the checkpoint
    start, end = map(float, re.search(r"([\d.]+) to ([\d.]+) s", segment.get_attribute("title")).groups())
    video = page.locator("video").element_handle()
    video.evaluate(
        "video => { window.times = []; video.addEventListener('timeupdate', () => times.push(video.currentTime)); }"
    )
    segment.click()
    page.wait_for_function("video => window.times.length > 2 && video.paused", arg=video)
    times = page.evaluate("window.times")
    assert times == sorted(times)
    assert start - 0.05 <= times[0] < times[1] <= times[-1] == pytest.approx(end, abs=0.4)


def test_phone_opens_a_query_over_the_list(evaluation, open_page):
    page = explore(open_page, evaluation, width=400)
    assert not page.locator("#detail").is_visible()
    page.locator(".row").nth(1).click()
    assert page.locator("#detail").bounding_box()["width"] == 400
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.locator("#back").click()
    assert not page.locator("#detail").is_visible()
    assert page.locator(".row").first.is_visible()


def test_texts_are_not_markup(open_page, tmp_path):
    evil = "<img src=x onerror=\"document.title='broken'\"></script><script>document.title='broken'</script>"
    row = {
        "video": str(tmp_path / "a.mp4"),
        "query": f"q {evil}", "model_output": f"<think>{evil}</think><answer>1 to 2</answer>",
        "gt_relevant": True, "gt_timestamp": [1, 2], "gt_output": "<answer>1 to 2</answer>", "duration": 9.0,
    }  # fmt: skip

    (tmp_path / "p.json").write_text(json.dumps([row]))
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    steps.evaluate(None, None, str(tmp_path / "out"), predictions=str(tmp_path / "p.json"))
    page = open_page(tmp_path / "out" / "report.html", "#view=queries")
    page.locator("body[data-ready]").wait_for()
    assert evil in page.locator("#detail .completion").text_content()
    assert page.title().startswith("Evaluation")
    page.locator("#detail").get_by_text("cannot be played here").wait_for()
