"""Pages in a real browser: what they show and do, and that nothing in them acts or leaves.

Synchronous Playwright keeps an event loop of its own running in this thread, so its fixture ends with the
module: a coroutine test of another module would find that loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.nodesets import natural_key
from phalanx.controller.report.csv_page import csv_page
from phalanx.controller.report.mail import mail_page, read_folder
from phalanx.controller.report.run_page import run_page
from phalanx.controller.report.sides import compared, read_sides
from phalanx.controller.report.sides import page as compare_page
from phalanx.controller.results.summary import of_records, read_summary

from tests.runs.stories import START
from tests.tiers import browser_program

from .making import cluster_run, nightly, table, with_logs, write_run
from .test_pages import evil_run, evil_table

pytestmark = pytest.mark.browser

#: A root's Chromium has no sandbox of its own; the rest keeps it from asking for anything by itself.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
PATIENCE_MS = 20_000


@dataclass(slots=True)
class Opened:
    """A page in the browser, and all that it did beside showing itself."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def column(self, name: str) -> list[str]:
        """The cells of a column of the rows, as they stand."""
        return list(
            self.page.evaluate(
                """name => { const table = document.querySelector('section.rows table');
                const place = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === name);
                return [...table.tBodies[0].rows].map(row => row.cells[place].textContent) }""",
                name,
            )
        )

    def head(self, name: str) -> Any:
        """The heading of a column of the rows."""
        return self.page.locator(
            "section.rows th", has=self.page.get_by_role("button", name=name, exact=True)
        )

    @property
    def told(self) -> str:
        """How many rows the page says it shows."""
        return str(self.page.locator(".filter output").inner_text())


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not browser_program():
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=browser_program(), headless=True, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a page from a file, watched."""
    contexts = []

    def opened(
        content: bytes, width: int = 1280, watch: Callable[[Any], None] = lambda page: None, **options: Any
    ) -> Opened:
        path = tmp_path / f"page{len(contexts)}.html"
        path.write_bytes(content)
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.set_default_timeout(PATIENCE_MS)
        found.page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.on("dialog", lambda dialog: (found.dialogs.append(dialog.message), dialog.dismiss()))
        watch(found.page)
        found.page.goto(path.as_uri())
        found.asked.remove(path.as_uri())
        return found

    yield opened
    for context in contexts:
        context.close()


def every_page(folder: Path) -> dict[str, bytes]:
    old, new = table(folder / "old.csv", nightly(16)), table(folder / "new.csv", nightly(16, seed=9))
    sides = read_sides((str(old), str(new)), folder)
    return {
        "table": csv_page("perf.csv", "/x", of_records(nightly(40))),
        "run": run_page(with_logs(write_run(folder / "runs", cluster_run())), START + 1000),
        "compare": compare_page(sides, compared(sides)),
        "mail": mail_page("Results", read_folder(folder).tables, ()),
    }


@pytest.mark.parametrize("kind", ["table", "run", "compare", "mail"])
def test_a_page_shows_itself_without_a_complaint_and_asks_for_nothing(
    show: Open, tmp_path: Path, kind: str
) -> None:
    found = show(every_page(tmp_path)[kind])
    assert found.page.locator("h1").is_visible()
    assert (found.said, found.asked) == ([], [])


@pytest.mark.parametrize("kind", ["table", "run", "compare"])
@pytest.mark.parametrize("width", [380, 1280])
def test_a_wide_table_scrolls_within_itself_and_never_the_page(
    show: Open, tmp_path: Path, kind: str, width: int
) -> None:
    found = show(every_page(tmp_path)[kind], width)
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_click_sorts_by_a_column_and_another_turns_it_round(show: Open) -> None:
    found = show(csv_page("perf.csv", "/x", of_records(nightly(40))))
    head = found.head("performance")
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").click()
    values = [float(cell) for cell in found.column("performance") if cell]
    assert values == sorted(values)
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    cells = found.column("performance")
    assert [float(cell) for cell in cells if cell] == sorted(values, reverse=True)
    assert cells[-1] == "", "what has no value stands last whichever way"
    assert head.get_attribute("aria-sort") == "descending"


def test_the_keyboard_sorts_and_one_column_at_a_time_says_so(show: Open) -> None:
    found = show(csv_page("perf.csv", "/x", of_records(nightly(40))))
    found.head("model").get_by_role("button").focus()
    found.page.keyboard.press("Enter")
    models = found.column("model")
    assert models == sorted(models, key=natural_key), "8b stands before 70b"
    found.page.keyboard.press("Tab")
    found.page.keyboard.press("Space")
    assert found.head("status").get_attribute("aria-sort") == "ascending"
    assert found.head("model").get_attribute("aria-sort") == "none"
    assert found.column("status") == sorted(found.column("status"))


def test_words_and_statuses_filter_the_rows_and_how_many_is_said(show: Open) -> None:
    rows = nightly(80)
    found = show(csv_page("perf.csv", "/x", of_records(rows)))
    assert found.told == "80 of 80 rows"
    found.page.keyboard.press("/")
    found.page.keyboard.type("VLLM 70b")
    wanted = [one for one in rows if one["model"] == "pyt_vllm_llama-3.1-70b"]
    assert found.told == f"{len(wanted)} found, {len(wanted)} of 80 rows"
    assert set(found.column("model")) == {"pyt_vllm_llama-3.1-70b"}
    found.page.locator(".filter input").fill("")
    failed = found.page.locator(".chip[data-status=FAILURE]")
    failed.click()
    assert failed.get_attribute("aria-pressed") == "true"
    assert set(found.column("status")) == {"FAILURE"}
    assert len(found.column("status")) == sum(1 for one in rows if one["status"] == "FAILURE") > 0
    failed.click()
    assert found.told == "80 of 80 rows"
    found.page.locator(".filter input").fill("no such words")
    assert found.told == "0 found, 0 of 80 rows"


def test_ten_thousand_rows_are_sorted_filtered_and_turned_over(show: Open) -> None:
    found = show(csv_page("perf.csv", "/x", of_records(nightly(10_000))))
    assert found.told == "1–300 of 10,000 rows"
    assert len(found.column("#")) == 300
    found.head("#").get_by_role("button").click()
    found.head("#").get_by_role("button").click()
    assert found.column("#")[0] == "10000"
    found.page.get_by_role("button", name="next").click()
    assert found.told == "301–600 of 10,000 rows"
    assert found.column("#")[0] == "9700"
    found.page.get_by_role("button", name="previous").click()
    assert found.page.get_by_role("button", name="previous").is_disabled()
    found.page.locator(".filter input").fill("rccl")
    assert found.told == "1,250 found, 1–300 of 10,000 rows"


def test_without_scripts_every_row_is_there(show: Open) -> None:
    found = show(csv_page("perf.csv", "/x", of_records(nightly(320))), java_script_enabled=False)
    assert found.page.locator("section.rows tbody tr").last.is_visible()
    assert not found.page.locator(".filter").is_visible()


def test_paper_has_all_that_is_folded_on_the_screen(show: Open, tmp_path: Path) -> None:
    found = show(every_page(tmp_path)["run"])
    assert not found.page.get_by_text("RuntimeError: NCCL communicator was aborted").is_visible()
    found.page.emulate_media(media="print")
    found.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert found.page.get_by_text("RuntimeError: NCCL communicator was aborted").is_visible()
    assert found.page.get_by_text("[rank35]: step  89").is_visible()
    assert not found.page.locator(".filter").is_visible()


def test_a_page_prints_with_its_text(show: Open, tmp_path: Path) -> None:
    found = show(every_page(tmp_path)["run"])
    paper = found.page.pdf(prefer_css_page_size=True, tagged=True)
    assert paper.startswith(b"%PDF-")
    assert paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") >= 2
    assert b"/ToUnicode" in paper, "its words are text and no picture"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_legible_on_light_and_dark_ground(show: Open, tmp_path: Path, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 for text, of every element that holds words of its own."""
    found = show(every_page(tmp_path)["run"], color_scheme=scheme)
    grounds = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (grounds == "rgb(245, 246, 248)") is (scheme == "light")
    assert found.page.evaluate(CONTRAST) == []


CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll('body *:not(script):not(svg):not(svg *)')) {
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(ground(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) poor.push(element.tagName + '.' + element.className + ' ' + contrast.toFixed(2));
  }
  return [...new Set(poor)];
}"""


def evil_pages(folder: Path) -> dict[str, bytes]:
    path = evil_table(folder)
    sides = read_sides((str(path), str(path)), folder)
    return {
        "table": csv_page("evil.csv", "/x", read_summary(path)),
        "run": evil_run(folder / "runs"),
        "compare": compare_page(sides, compared(sides)),
        "mail": mail_page("evil", read_folder(folder).tables, ()),
    }


@pytest.mark.parametrize("kind", ["table", "run", "compare", "mail"])
def test_no_name_from_outside_runs_asks_or_opens_anything(show: Open, tmp_path: Path, kind: str) -> None:
    found = show(evil_pages(tmp_path)[kind])
    for part in found.page.locator("summary").all():
        part.click()
    for part in found.page.locator("th button, .chip:enabled").all()[:12]:
        if part.is_visible():
            part.click()
    found.page.mouse.move(300, 400)
    found.page.mouse.move(500, 420)
    assert found.page.evaluate("typeof window.hacked") == "undefined"
    assert (found.said, found.asked, found.dialogs) == ([], [], [])


def test_the_browser_itself_refuses_what_the_page_did_not_come_with(show: Open) -> None:
    """The second wall: markup that got past the first would still neither run nor load."""
    content = csv_page("perf.csv", "/x", of_records(nightly(4)))
    planted = b"<script>window.hacked = 1</script><img src='https://evil.example/x' onerror='hacked = 2'>"
    refused: list[tuple[str, str | None]] = []
    found = show(
        content.replace(b"<footer>", planted + b"<footer>"),
        watch=lambda page: page.on("requestfailed", lambda one: refused.append((one.url, one.failure))),
    )
    assert found.page.evaluate("typeof window.hacked") == "undefined"
    assert refused == [("https://evil.example/x", "csp")]
    assert len([words for words in found.said if "Content Security Policy" in words]) >= 2, found.said
