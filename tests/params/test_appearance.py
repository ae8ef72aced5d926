"""One look per architecture: fixed, told apart by colour-blind readers, without clashes."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_repro.params import Cell
from sae_repro.params.appearance import CONTROL, FIXED, look, looks
from sae_repro.params.architecture import architecture_of

Vector = npt.NDArray[np.float64]

# linear RGB as seen without one kind of cone: Machado, Oliveira, Fernandes 2009, severity 1
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                            [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip
D65 = np.array([0.95047, 1.0, 1.08883])


def lab(colour: str, sight: Vector) -> Vector:
    """CIE L*a*b* of a colour of sRGB as `sight` sees it."""
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    x = XYZ @ np.clip(sight @ linear, 0, 1) / D65
    f = np.where(x > (6 / 29) ** 3, np.cbrt(x), x / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def closest(colours: list[str], sight: Vector) -> float:
    """The least ΔE (CIE 1976) of two of them."""
    seen = [lab(colour, sight) for colour in colours]
    return min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2))


@pytest.mark.parametrize("name", SIGHT)
def test_colours_are_told_apart_by_everyone(name: str) -> None:
    assert closest([row.colour for row in FIXED.values()], SIGHT[name]) > 20


def test_the_simulation_knows_a_palette_that_is_not_safe() -> None:
    pair = ["#CC3311", "#557700"]
    assert closest(pair, SIGHT["normal"]) > 50
    assert closest(pair, SIGHT["deuteranopia"]) < 20


def test_colours_stand_out_from_the_page() -> None:
    assert all(lab(row.colour, SIGHT["normal"])[0] < 80 for row in FIXED.values())


def test_no_two_fixed_ones_share_a_colour_or_a_marker() -> None:
    assert len({row.colour for row in FIXED.values()}) == len(FIXED)
    assert len({row.marker for row in FIXED.values()}) == len(FIXED)


def test_a_variant_has_the_colour_of_its_kin_and_a_marker_of_its_own() -> None:
    for name, kin in {
        "topk without revival": "topk",
        "matryoshka-random over topk": "matryoshka-random",
        "matryoshka-fixed-ordered over jumprelu": "matryoshka-fixed",
        "vanilla (tanh)": "vanilla",
        "imported batchtopk": "batchtopk",
        "vanilla + resampling as published": "vanilla + resampling",
    }.items():
        assert look(name).colour == FIXED[kin].colour
        assert look(name).marker not in {row.marker for row in FIXED.values()}
    assert look("batchtopk without revival").colour != FIXED["topk"].colour


def test_negative_controls_are_grey() -> None:
    names = ["neurons", "PCA", "untrained topk", "topk on random weights",
             "topk on embeddings alone", "frozen decoder topk", "frozen soft decoder topk",
             "frozen encoder topk"]  # fmt: skip
    assert {look(name).colour for name in names} == {CONTROL}
    assert len({look(name).marker for name in names}) == len(names)
    assert look("neurons").line != look("topk").line


@given(st.lists(st.sampled_from([*FIXED, *(f"{b} {v}" for b in FIXED for v in "abcdef")]),
                unique=True))  # fmt: skip
def test_no_two_architectures_look_alike_and_fixed_ones_stay(names: list[str]) -> None:
    drawn = looks(names)
    assert list(drawn) == names
    assert len({(row.colour, row.marker) for row in drawn.values()}) == len(names)
    for name in names:
        assert drawn[name].colour == look(name).colour
        if name in FIXED:
            assert drawn[name] == FIXED[name]


@given(st.text(min_size=1, max_size=20))
def test_any_name_has_a_look_and_always_the_same(name: str) -> None:
    assert look(name) == look(name)
    assert look(name).label == name


@pytest.mark.parametrize(
    ("choices", "name"),
    [({"activation": "topk", "k": 4, "revival": "auxk", "dead_tokens": 9}, "topk"),
     ({"penalty": "l1", "lambda": 1e-2}, "vanilla"),
     ({"activation": "topk", "k": 4, "revival": "auxk", "frozen": "soft_decoder"},
      "frozen soft decoder topk"),
     ({"baseline": "pca"}, "PCA")],
)  # fmt: skip
def test_the_label_is_the_name_of_the_architecture(choices: dict[str, object], name: str) -> None:
    build: Callable[..., Cell] = Cell
    cell = build(**choices) if "baseline" in choices else build(expansion=4, **choices)
    assert look(architecture_of(cell)).label == name
