"""Findings: few sentences, no stronger than their intervals."""

from pathlib import Path

import pytest

from sae_repro.compare.findings import MOST, above_0, against_controls, sentences, write_findings

from .results import TOPK, result

M = "monosemantic_fraction_alive"
RATE, COPIES = "absorption_rate", "decoder_near_copy_fraction"


NEURONS = result("neurons", {"baseline": "neurons"}, {M: (0.05, 0.02, 0.1)})


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ((0.3, 0.2, 0.4), "1 of 1 cell with several seeds are above every control"),
        ((0.08, 0.06, 0.2), "0 of 1 cell with several seeds are above every control"),
        ((0.0, 0.0, 0.01), "0 of 1 cell with several seeds are above every control"),
    ],
)
def test_a_cell_beats_a_control_only_where_intervals_are_apart(
    value: tuple[float, float, float], verdict: str
) -> None:
    (sentence,) = against_controls([result("a", TOPK, {M: value})], [NEURONS], M)
    assert verdict in sentence
    assert "(the highest is neurons, 0.0500 [0.0200, 0.100])" in sentence
    assert sentence.endswith("; not a.") == verdict.startswith("0")


def test_of_one_seed_nothing_is_claimed() -> None:
    """Of the cell or of the control."""
    high, low = {M: (0.5, 0.4, 0.6)}, {M: (0.05, 0.02, 0.1)}
    single = result("s", TOPK, high, spread=None)
    assert list(against_controls([single], [NEURONS], M)) == []
    start = {"baseline": "untrained", "activation": "topk", "k": 8, "expansion": 8}
    control = result("start", start, low, spread=None)
    assert list(against_controls([result("a", TOPK, high)], [control], M)) == []
    rate = result("s", TOPK, {"absorption_rate": (0.2, 0.1, 0.3)}, spread=None)
    assert list(above_0([rate], "absorption_rate")) == []


def test_a_rate_is_above_0_only_where_its_interval_is() -> None:
    none = [result(name, TOPK, {"absorption_rate": (0.01, 0.0, 0.04)}) for name in "ab"]
    assert list(above_0(none, "absorption_rate")) == [
        "Absorption rate: in none of 2 cells above 0 (5 % false discoveries)."
    ]
    some = result("c", TOPK, {"absorption_rate": (0.2, 0.1, 0.3)})
    assert list(above_0([*none, some], "absorption_rate")) == [
        "Absorption rate: above 0 in 1 of 3 cells with several seeds (5 % false discoveries), most "
        "in c, 0.200 [0.100, 0.300]."
    ]
    barely = result("d", TOPK, {"absorption_rate": (0.2, 0.01, 0.39)})
    many = [result(f"n{i}", TOPK, {"absorption_rate": (0.01, 0.0, 0.04)}) for i in range(9)]
    assert "above 0 in 1 of 1" in next(above_0([barely], "absorption_rate"))
    assert "in none of 10 cells above 0" in next(above_0([barely, *many], "absorption_rate"))
    # as far from 0 in halves of its interval, but that is Wilson's over the latents of all seeds
    far = [result(f"n{i}", TOPK, dict.fromkeys((COPIES, RATE), (0.0, 0.0, 0.01))) for i in range(9)]
    far.append(result("e", TOPK, dict.fromkeys((COPIES, RATE), (0.05, 0.02, 0.1))))
    assert "in none of 10 cells above 0" in next(above_0(far, RATE))
    assert "above 0 in 1 of 10 cells" in next(above_0(far, COPIES))
    below = result("a", TOPK, {"hole_rate": (-0.2, -0.3, -0.1)})
    assert "in none of 1 cell above 0" in next(above_0([below], "hole_rate"))


def test_a_flagged_metric_is_in_no_sentence(tmp_path: Path) -> None:
    cells = [result("a", TOPK, {M: (0.3, 0.2, 0.4), "coverage": (0.5, 0.4, 0.6)}), NEURONS]
    assert any("onosemantic" in said for said in sentences(cells, []))
    assert not any("onosemantic" in said for said in sentences(cells, [], frozenset({M})))
    write_findings(tmp_path, cells, [], frozenset({M}))
    assert (
        f"do not tell trained cells from controls: {M}." in (tmp_path / "findings.md").read_text()
    )


def test_there_are_few_sentences_however_many_cells(tmp_path: Path) -> None:
    cells = [result(f"c{i}", TOPK, {M: (0.3, 0.2, 0.4), "hole_rate": (0.3, 0.2, 0.4)})
             for i in range(40)]  # fmt: skip
    write_findings(tmp_path, [*cells, NEURONS], [], frozenset())
    lines = (tmp_path / "findings.md").read_text().splitlines()
    said = [line for line in lines if line.startswith("- ")]
    assert 0 < len(said) <= MOST
    assert max(map(len, said)) < 400
