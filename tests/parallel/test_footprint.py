"""The table of docs/scaling-out.md is what the formulas give; these are tested by `test_bits`."""

from pathlib import Path

from sae_repro.cli.footprint import table
from sae_repro.params import Cell

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scaling-out.md"
D, N = 16_384, 4096
CELL = Cell(expansion=1024, activation="topk", k=64, latent_shards=64)


def test_the_table_of_16_million_latents_is_computed_so() -> None:
    rows = [line.split("  ") for line in table(CELL, D, N).splitlines()[2:]]
    cells = [[part.strip() for part in row if part.strip()] for row in rows]
    expected = ["| " + " | ".join(row) + " |" for row in cells]
    assert CELL.width(D) == 2**24 and len(expected) == 7
    assert "\n".join(expected) in PAGE.read_text(encoding="utf-8")
