"""Python snippets of README.md and docs/: each runs unchanged in a small finished study.

Those of docs/tutorial.md build on one another: `test_tutorial` runs them.
"""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import ROOT, Checkout


def snippets(page: Path) -> dict[str, str]:
    """The fenced Python of a page, by page and line."""
    text = page.read_text()
    return {
        f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, block.start()) + 1}": block[1]
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S)
    }


SNIPPETS: dict[str, str] = {
    where: code
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if page.name != "tutorial.md"
    for where, code in snippets(page).items()
}


@pytest.mark.parametrize("where", SNIPPETS)
def test_python_in_the_documentation_runs(where: str, finished: Checkout) -> None:
    if "sae_lens" in SNIPPETS[where] and find_spec("sae_lens") is None:
        pytest.skip("needs sae-lens: pip install '.[saelens]'")
    # the small study's cell and hook in place of the root study's
    code = (
        SNIPPETS[where]
        .replace("topk-x8-k16/seed-0", "matryoshka")
        .replace("blocks.1.", "blocks.0.")
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=finished.folder, env=finished.environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "a snippet prints what it is about"
    if where.startswith("README.md"):
        assert "torch.Size([16])" in done.stdout
