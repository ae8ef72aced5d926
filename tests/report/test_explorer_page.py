"""The feature explorer from file:// in a browser: no request, no console error, no injection."""

import re
import shutil
from pathlib import Path

import pytest

from ..track.chromium import Chromium
from .explorer_data import HOSTILE, explorer

ROOT = Path(__file__).resolve().parents[2]
FIRST, SECOND = "topk-x8-k16.seed-0", "topk-x8-k16.seed-1"
LATENTS = 300
ROWS = "[...document.querySelectorAll('.body .row')]"
SHOWN = f"{ROWS}.map(row => row.querySelector('a').textContent).join()"
HEADING = "document.querySelector('.page h1')?.textContent"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of an explorer of hostile text."""
    return explorer(tmp_path_factory.mktemp("explorer"), LATENTS).as_uri()


def visit(browser: Chromium, page: str, link: str, ready: str) -> None:
    """Open a link as from elsewhere, not from the page before."""
    browser.open("about:blank")
    browser.open(page + link)
    browser.wait_for(ready, 60)


def search(browser: Chromium, text: str, ready: str) -> None:
    browser.evaluate(
        f"(field => {{ field.value = {text!r}; field.dispatchEvent(new Event('input', "
        "{bubbles: true})) })(document.querySelector('input[type=search]'))"
    )
    browser.wait_for(ready, 30)


def press(browser: Chromium, key: str) -> None:
    browser.evaluate(
        f"document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{key: {key!r}, "
        "bubbles: true, cancelable: true}))"
    )


def test_given_activations_are_called_rows(quiet: Chromium, tmp_path: Path) -> None:
    page = explorer(tmp_path, K=8, unit="rows").as_uri()
    visit(quiet, page, "", f"{ROWS}.length > 2")
    search(quiet, "/Lily|Sue/", f"{SHOWN} === '3,2'")
    said = "document.body.innerText + [...document.querySelectorAll('[title], [placeholder]')]" \
        ".map(e => e.title + e.placeholder).join(' ')"  # fmt: skip
    text = quiet.evaluate(said)
    assert "2 matching rows Lily Sue" in text and "fraction of rows" in text
    assert not re.search(r"\btokens?\b(?!:)", text)  # `token:Lily` is a concept's name
    visit(quiet, page, f"#/{FIRST}/2", f"{HEADING} === 'Latent 2'")
    quiet.wait_for("document.querySelector('.context') !== null", 30)
    text = quiet.evaluate(said)
    assert "document 100, row 0" in text and "fraction of the child's rows" in text


def test_search_regex_sort_open_follow_partner_and_back(sized: Chromium, page: str) -> None:
    visit(sized, page, "", f"{ROWS}.length > 10")
    assert sized.evaluate("document.querySelector('[role=table]').ariaRowCount") == "301"
    search(sized, "THE NAME", f"{SHOWN} === '3,2'")
    search(sized, "/Lily|Sue/", f"{SHOWN} === '3,2'")
    assert "2 matching tokens Lily Sue" in sized.evaluate(
        "document.querySelector('.found').innerText"
    )
    search(sized, "/(/", "document.querySelector('.found.error') !== null")
    assert "Unterminated group" in sized.evaluate("document.querySelector('.found').textContent")
    search(sized, "", f"{ROWS}.length > 10")
    # by density, largest first
    sized.evaluate(
        "[...document.querySelectorAll('.head button')].find(b => b.textContent == 'Density')"
        ".click()"
    )
    by = "document.querySelector('[aria-sort=descending]').textContent"
    sized.wait_for(f"{by} === 'Density ↓'", 30)
    densities = sized.evaluate(f"{ROWS}.map(row => row.querySelectorAll('.number')[0].textContent)")
    assert len(densities) > 10
    values = [float(value.replace("−", "-")) for value in densities]
    assert values == sorted(values, reverse=True)
    search(sized, "the name lily", f"{SHOWN} === '2'")
    sized.evaluate(f"{ROWS}[0].querySelector('a').click()")
    sized.wait_for(f"{HEADING} === 'Latent 2'", 30)
    sized.wait_for("document.querySelector('.chart svg') !== null", 60)
    assert "once upon a time there was a Lily who went" in sized.evaluate(
        "document.querySelector('.context p').innerText"
    )
    sized.evaluate("document.querySelector('.small a').click()")  # its nearest decoder neighbour
    sized.wait_for(f"{HEADING} === 'Latent 3'", 30)
    sized.evaluate("history.back()")
    sized.wait_for(f"{HEADING} === 'Latent 2'", 30)
    sized.evaluate("history.back()")
    sized.wait_for(f"{SHOWN} === '2'", 30)
    assert sized.evaluate("document.querySelector('input[type=search]').value") == "the name lily"
    assert sized.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_deep_link_opens_a_latent_beside_its_partner(sized: Chromium, page: str) -> None:
    visit(sized, page, f"#/{FIRST}/7", f"{HEADING} === 'Latent 7'")
    assert sized.evaluate("document.querySelectorAll('.panel').length") == 1
    sized.evaluate("document.querySelector('.partners button').click()")
    both = "document.querySelectorAll('.panel .context').length >= 10"
    sized.wait_for(f"document.querySelectorAll('.panel').length === 2 && {both}", 30)
    assert sized.evaluate("location.hash") == f"#/{FIRST}/7?with={SECOND}"
    visit(sized, page, f"#/{FIRST}/7?with={SECOND}", both)
    names = sized.evaluate(
        "[...document.querySelectorAll('.panel')].map(panel => panel.ariaLabel).join()"
    )
    assert names == "Latent 7 of topk-x8-k16, seed 0,Latent 8 of topk-x8-k16, seed 1"
    left, right = sized.evaluate(
        "[...document.querySelectorAll('.panel')].map(panel => panel.getBoundingClientRect().x)"
    )
    assert (right > left) == (sized.evaluate("innerWidth") > 700)
    assert sized.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_hostile_text_is_shown_and_runs_nothing(sized: Chromium, page: str) -> None:
    ready = f"document.querySelectorAll('.context').length === {2 * len(HOSTILE)}"
    visit(sized, page, f"#/{FIRST}/1", ready)
    sized.wait_for("document.querySelector('.chart svg') !== null", 60)
    shown = sized.evaluate("[...document.querySelectorAll('.peak')].map(t => t.textContent)")
    assert shown[: len(HOSTILE)] == [
        *HOSTILE[:3], "\\u202eright to left\\u202c", *HOSTILE[4:6], "\\ud800",
        "\\u0000\\u001b\\n\\u2028", f"{'x' * 160}… (10,000 characters)", *HOSTILE[9:],
    ]  # fmt: skip
    assert sized.evaluate("document.querySelectorAll('.page img, .page script').length") == 0
    isolated = "getComputedStyle(document.querySelector('.peak')).unicodeBidi"
    assert sized.evaluate(isolated) == "isolate"
    assert sized.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visit(sized, page, f"#/{FIRST}?q=window.hacked", f"{SHOWN} === '1'")
    script = "%3Cscript%3Ewindow.hacked%3D4%3C%2Fscript%3E"
    visit(sized, page, f"#/{script}", "document.querySelector('[role=alert]') !== null")


def test_keys_move_open_and_lead_back_to_the_same_place(quiet: Chromium, page: str) -> None:
    quiet.resize(1280, 800)
    visit(quiet, page, f"#/{SECOND}?sort=-id", f"{ROWS}.length > 10")
    for _ in range(40):
        press(quiet, "j")
        quiet.evaluate("new Promise(requestAnimationFrame) && 0")
    focused = "document.activeElement.id"
    quiet.wait_for(f"{focused} === 'latent-260'", 30)
    press(quiet, "k")
    quiet.wait_for(f"{focused} === 'latent-261'", 30)
    top = quiet.evaluate("document.querySelector('.table').scrollTop")
    assert top > 500
    quiet.evaluate("document.activeElement.click()")
    quiet.wait_for(f"{HEADING} === 'Latent 261'", 30)
    press(quiet, "j")
    quiet.wait_for(f"{HEADING} === 'Latent 260'", 30)
    quiet.wait_for(f"location.hash.startsWith('#/{SECOND}/260')", 30)
    press(quiet, "u")
    quiet.wait_for(f"{ROWS}.length > 10", 30)
    assert quiet.evaluate("document.querySelector('.table').scrollTop") == top
    press(quiet, "/")
    assert quiet.evaluate("document.activeElement.type") == "search"
    quiet.evaluate("document.activeElement.blur()")
    press(quiet, "?")
    assert quiet.evaluate("document.querySelector('dialog').open")


def test_a_key_pressed_as_the_list_leaves_is_not_the_lists(quiet: Chromium, page: str) -> None:
    """Between the list's removal and the next frame, where effects have not been cleaned up."""
    visit(quiet, page, f"#/{SECOND}", f"{ROWS}.length > 10")
    quiet.evaluate(
        "(table => new MutationObserver((_, observer) => { if (table.isConnected) return; "
        "observer.disconnect(); for (const key of ['j', 'k']) document.body.dispatchEvent("
        "new KeyboardEvent('keydown', {key, bubbles: true})); window.pressed = true; })"
        ".observe(document.body, {childList: true, subtree: true}))"
        "(document.querySelector('.table'))"
    )
    quiet.evaluate(f"{ROWS}[5].querySelector('a').click()")
    quiet.wait_for(f"window.pressed && {HEADING} !== undefined", 30)


def test_a_point_of_the_map_opens_its_latent(quiet: Chromium, page: str) -> None:
    quiet.resize(1280, 2400)
    charts = "[...document.querySelectorAll('.chart')]"
    visit(
        quiet,
        page,
        f"#/{FIRST}/20",
        f"{charts}.length === 4 && {charts}.at(2).firstChild !== null",
    )
    points = (
        f"[...{charts}.at(2).querySelectorAll('path')].map(p => p.getBoundingClientRect())"
        ".filter(r => r.width > 8 && r.width < 12)"
    )
    quiet.wait_for(f"{points}.length === 11", 30)
    x, y = quiet.evaluate(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({points}[0])")
    quiet.click(x, y)
    quiet.wait_for(f"/^Latent (2[1-9]|3[01])$/.test({HEADING})", 30)


def test_a_latent_leads_to_its_parent_in_another_width(quiet: Chromium, page: str) -> None:
    quiet.resize(1280, 1600)
    cards = "[...document.querySelectorAll('.side .card')]"
    visit(quiet, page, f"#/{SECOND}/7", f"{cards}.some(c => c.innerText.includes('Across widths'))")
    family = f"{cards}.find(c => c.innerText.includes('Across widths'))"
    told = quiet.evaluate(f"{family}.innerText")
    assert "Parent in topk-x8-k16, seed 0" in told and "and 2 more" in told
    # an SAE that the explorer does not hold has no page to open
    assert quiet.evaluate(f"{family}.querySelectorAll('a').length") == 1
    quiet.evaluate(f"{family}.querySelector('a').click()")
    quiet.wait_for(f"location.hash === '#/{FIRST}/7'", 30)


def test_only_rows_in_view_exist(quiet: Chromium, page: str) -> None:
    quiet.resize(1280, 800)
    visit(quiet, page, f"#/{FIRST}?sort=id", f"{ROWS}.length > 10")
    assert quiet.evaluate(f"{ROWS}.length") < 60
    quiet.evaluate("document.querySelector('.table').scrollTop = 1e6")
    quiet.wait_for("document.getElementById('latent-299') !== null", 30)
    assert quiet.evaluate(f"{ROWS}.length") < 60


def test_a_link_to_nothing_says_so(quiet: Chromium, page: str) -> None:
    alert = "document.querySelector('[role=alert]')?.textContent"
    visit(quiet, page, "#/nowhere", f"/^No SAE nowhere/.test({alert})")
    visit(quiet, page, f"#/{FIRST}/300", f"/has no latent 300: its last is 299/.test({alert})")


def test_a_file_that_is_missing_is_named(browser: Chromium, tmp_path: Path) -> None:
    page = explorer(tmp_path, 20)
    (tmp_path / "data" / FIRST / "tokens.js").unlink()
    visit(browser, page.as_uri(), "", f"{ROWS}.length > 10")
    search(browser, "/Lily/", "document.querySelector('[role=alert]') !== null")
    told = browser.evaluate("document.querySelector('[role=alert]').textContent")
    assert told == f"data/{FIRST}/tokens.js: not there, or not readable"


def test_the_root_studys_own_explorer_shows_a_latent_beside_its_partner(
    quiet: Chromium, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    page = ROOT / "reports/explorer/index.html"
    if not page.is_file():
        pytest.skip("no reports/explorer in this checkout: dvc repro report writes it")
    quiet.resize(1280, 800)
    visit(
        quiet, page.as_uri(), "#/?class=monosemantic-complete&sort=-density", f"{ROWS}.length > 5"
    )
    quiet.screenshot(tmp_path / "explorer.png")
    quiet.evaluate(f"{ROWS}[2].querySelector('a').click()")
    quiet.wait_for("document.querySelector('.partners button') !== null", 30)
    quiet.evaluate("document.querySelector('.partners button').click()")
    panels = "[...document.querySelectorAll('.panel')]"
    drawn = "panel => panel.querySelector('.chart svg') && panel.querySelector('.peak')"
    quiet.wait_for(f"{panels}.length === 2 && {panels}.every({drawn})", 60)
    quiet.settle(1)
    quiet.screenshot(tmp_path / "explorer-partner.png")
    for picture in tmp_path.glob("*.png"):
        assert picture.stat().st_size > 20_000
        if request.config.getoption("--renew-pictures", default=False):
            shutil.copy(picture, ROOT / "docs")
