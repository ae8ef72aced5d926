"""The stage's page in a browser, from file://: charts, origins of numbers, a hostile text."""

import shutil
from pathlib import Path
from typing import Any

from ..pipeline.in_process import carry_out
from ..track.chromium import Chromium
from .test_report import replace_text

NUMBERS = "[...document.querySelectorAll('td[data-cells]')]"
PANEL = "document.getElementById('origin')"
HACKS = (
    "<script>window.hacked = 1</script>",
    "</style></title></table><img src=x onerror='window.hacked = 2'>",
    '" onmouseover="window.hacked = 3',
    "\u202eright to left",
    "</script><script>window.hacked = 4</script>",
    "x" * 10_000,
)


def visit(browser: Chromium, page: Path, ready: str) -> None:
    browser.open("about:blank")
    browser.open(page.as_uri())
    loaded = "location.protocol === 'file:' && document.readyState === 'complete'"
    browser.wait_for(f"{loaded} && {ready}", 60)


def test_a_number_says_where_it_comes_from(
    sized: Chromium, finished: tuple[Path, dict[str, Any]]
) -> None:
    page = finished[0] / "reports/index.html"
    visit(sized, page, f"{NUMBERS}.length > 0")
    assert sized.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not sized.evaluate(f"{PANEL}.matches(':popover-open')")
    sized.evaluate(f"{NUMBERS}[0].click()")
    assert sized.evaluate(f"{PANEL}.matches(':popover-open')")
    told = sized.evaluate(f"{PANEL}.innerText")
    value, cell = sized.evaluate(
        f"[{NUMBERS}[0].dataset.full, {NUMBERS}[0].dataset.cells.split(' ')[0]]"
    )
    origin = sized.evaluate(f"origins[{cell!r}]")
    for part in (value, cell, origin["keys"][0], origin["artifact"], origin["trained"][0]):
        assert part in told
    assert f"git log -1 -S {origin['keys'][0]} -- reports/index.html" in told
    assert f"tags.`sae_repro.key` LIKE '{origin['trained'][0]}%'" in told
    sized.evaluate(f"{PANEL}.hidePopover()")
    hovered = f"{NUMBERS}[1].dispatchEvent(new PointerEvent('pointerover', {{bubbles: true}}))"
    sized.evaluate(hovered)
    assert "reports/tables/" in sized.evaluate(f"{NUMBERS}[1].title")


def test_charts_are_drawn_when_they_are_scrolled_to(
    sized: Chromium, finished: tuple[Path, dict[str, Any]]
) -> None:
    visit(sized, finished[0] / "reports/index.html", "document.querySelector('#density') !== null")
    places = sized.evaluate("[...document.querySelectorAll('[data-charts]')].map(p => p.id ||"
                            " p.dataset.charts)")  # fmt: skip
    assert {"frontier", "density"} <= {*places} == {*sized.evaluate("Object.keys(options)")}
    sized.evaluate("document.querySelector('#density .charts').scrollIntoView()")
    drawn = "document.querySelector('#density .chart svg path') !== null"
    sized.wait_for(drawn, 60)
    sized.evaluate("document.querySelector('#frontier .charts').scrollIntoView()")
    sized.wait_for("document.querySelectorAll('#frontier .chart svg path').length > 3", 60)


def test_a_hostile_text_runs_nothing_on_the_page_and_in_the_explorer(
    sized: Chromium, finished: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: Any
) -> None:
    """Lone surrogates are in tests of `bare`: no artifact of Arrow's holds one."""
    study = shutil.copytree(finished[0], tmp_path / "study")
    replace_text(study, lambda n: f"{HACKS[n % len(HACKS)]}{n}")
    monkeypatch.chdir(study)
    carry_out(finished[1], "report")
    visit(sized, study / "reports/index.html", f"{NUMBERS}.length > 0")
    text = sized.evaluate("document.body.textContent")
    assert all(hack in text for hack in HACKS[:3])
    assert sized.evaluate("document.documentElement.scrollWidth <= innerWidth")
    explorer = study / "reports/explorer/index.html"
    visit(sized, explorer, "document.querySelectorAll('.body .row').length > 5")
    sized.evaluate("document.querySelectorAll('.body .row a')[0].click()")
    sized.wait_for("document.querySelectorAll('.context').length > 0", 60)
    assert sized.evaluate("document.documentElement.scrollWidth <= innerWidth")
