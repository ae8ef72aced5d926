"""What the README shows in Python runs as it stands."""

import re
import subprocess
import sys

import pytest

from .conftest import ROOT, Checkout

pytestmark = pytest.mark.slow


def test_python_in_the_readme_runs(finished: Checkout) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        # the small study's cell and hook in place of the root study's
        assert "topk-x8-k16" in block
        code = block.replace("topk-x8-k16", "matryoshka").replace("blocks.1.", "blocks.0.")
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=finished.folder, env=finished.environment(),
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "torch.Size([16])" in done.stdout
