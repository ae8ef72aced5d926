"""How fast the explorer is with very many latents, in headless Chromium from a disk.

    python -m benchmarks.explorer [--latents 24576] [--words 20000] [--times 5]

Made-up data of two SAEs of that width, as tests/report/explorer_data.py writes them. Prints, in ms
by the page's own clock: from the start of the navigation to the first rows of the list, and from a
changed search field to the rows that it finds, of texts and of regular expressions over the tokens.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.report.explorer_data import explorer
from tests.track.chromium import Chromium, installed

TEXTS = ("river", "token:park", "#2457", "dense", "word1999")
REGEXES = ("/^word1.*9$/", "/Lily|Sue/", "/ing$/i", "/^word(1|2)/", "/[aeiou]{2}/")
SEARCH = """(text => {
  window.took = null;
  const field = document.querySelector("input[type=search]");
  const found = () => document.getElementById("found").textContent;
  const [before, start] = [found(), performance.now()];
  field.value = text;
  field.dispatchEvent(new Event("input", {bubbles: true}));
  const look = () => {
    if (found() !== before && !/Reading/.test(found())) window.took = performance.now() - start;
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})"""


def searched(browser: Chromium, text: str) -> float:
    """Milliseconds until the list has changed from that of all latents."""
    for wanted in ("", text):
        if browser.evaluate("document.querySelector('input[type=search]').value") != wanted:
            browser.evaluate(f"{SEARCH}({wanted!r})")
            browser.wait_for("window.took !== null", 60)
    return float(browser.evaluate("window.took"))


def opened(browser: Chromium, page: str) -> float:
    """Milliseconds from the start of the navigation to the first rows, by frames."""
    browser.open("about:blank")
    browser.open(page)
    entries = "performance.getEntriesByName('first-rows')"
    browser.wait_for(f"location.protocol === 'file:' && {entries}.length > 0", 60)
    return float(browser.evaluate(f"{entries}[0].startTime"))


def measure(browser: Chromium, page: str, times: int) -> dict[str, list[float]]:
    """Milliseconds of each opening and search."""
    browser.resize(1280, 800)
    starts = [opened(browser, page) for _ in range(times)]
    # the first regular expression reads the index of tokens
    searched(browser, "/zzz/")
    texts, regexes = [], []
    for _ in range(times):
        texts += [searched(browser, text) for text in TEXTS]
        regexes += [searched(browser, regex) for regex in REGEXES]
    return {"opens": starts, "search": texts, "regular expression": regexes}


def summary(name: str, values: list[float]) -> str:
    """Median and largest."""
    median, most = statistics.median(values), max(values)
    return f"{name}: median {median:.0f} ms, largest {most:.0f} ms, n = {len(values)}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latents", type=int, default=24_576)
    parser.add_argument("--words", type=int, default=20_000)
    parser.add_argument("--times", type=int, default=5)
    chosen = parser.parse_args()
    program = installed()
    if program is None:
        raise SystemExit("no Chromium on this machine (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as folder:
        page = explorer(Path(folder) / "explorer", chosen.latents, 256, chosen.words)
        for path in sorted((page.parent / "data").glob("*-0/[lt]*.js")):
            print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
        browser = Chromium(program, Path(folder))
        try:
            measured = measure(browser, page.as_uri(), chosen.times)
        finally:
            browser.close()
    for name, values in measured.items():
        print(summary(name, values))


if __name__ == "__main__":
    main()
