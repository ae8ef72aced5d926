"""Data of the feature explorer as the report stage writes them, made up: any size, hostile text."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

WEB = Path(__file__).resolve().parents[2] / "src/sae_repro/report/web"
NAMES = ("Lily", "Sue", "Tom", "Anna")
WORDS = ("boy", "dog", "park", "river", "happy", "said", "went", "home", "Ġthe", "##ing")
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    "</style></script><svg onload=window.hacked=3>",
    "\u202eright to left\u202c",
    "שלום",
    "👩‍👩‍👧",
    "\ud800",
    "\x00\x1b\n\u2028",
    "x" * 10_000,
    "__proto__",
    "{{7*7}}${7*7}",
)
CLASSES = ("dead", "rare", "dense", "monosemantic-narrow", "polysemantic")


def write(folder: Path, key: str, value: object) -> None:
    """One classic script; text outside ASCII is escaped, lone surrogates among it."""
    head, _, number = key.rpartition("/contexts/")
    path = folder / "data" / f"{f'{head}/contexts-{number}' if head else key}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"saeData({json.dumps(key)},{json.dumps(value, separators=(',', ':'))});\n")


def explorer(folder: Path, K: int = 300, chunk_size: int = 64, words: int = 0,  # noqa: N803
             unit: str = "tokens") -> Path:  # fmt: skip
    """The explorer of two seeds of a cell with K latents each; the address of its page.

    Latent 0 is dead; 1 has the hostile text; 2 peaks on "Lily", 3 on "Sue"; 4 + i of seed 0 is
    the partner of 5 + i of seed 1. `words`: how many more tokens the vocabulary has.
    `unit`: what the SAEs read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(WEB.iterdir()):
        if path.suffix in (".html", ".js", ".css"):
            shutil.copy(path, folder / ("index.html" if path.suffix == ".html" else path.name))
    ids = [f"topk-x8-k16.seed-{seed}" for seed in (0, 1)]
    chunks = -(-K // chunk_size)
    write(folder, "index", {
        "study": "stories",
        "saes": [
            {"id": id, "cell": "topk-x8-k16", "seed": seed, "architecture": "topk",
             "hook": "blocks.1.hook_resid_post", "unit": unit, "D": 64, "K": K, "l0": 16.0,
             "fvu": 0.0812, "m": 0.61, "chunk_size": chunk_size, "chunks": chunks,
             "partner_ids": [ids[1 - seed]]}
            for seed, id in enumerate(ids)
        ],
    })  # fmt: skip
    for seed, id in enumerate(ids):
        _sae(folder, id, ids[1 - seed], 1 - 2 * seed, (K, chunk_size), words)
    return folder / "index.html"


def _tokens(k: int, words: tuple[str, ...], rng: np.random.Generator) -> list[str]:
    """Tokens on which latent k peaks."""
    if k == 0:
        return []
    if k == 1:
        return list(HOSTILE)
    if k in (2, 3):
        return [NAMES[k - 2]]
    return [words[i] for i in rng.integers(len(words), size=4)]


def _sae(folder: Path, id: str, other: str, shift: int, sizes: tuple[int, int], words: int) -> None:
    K, chunk_size = sizes  # noqa: N806
    rng = np.random.default_rng(K + shift)
    vocabulary = (*WORDS, *(f"word{i}" for i in range(words)))
    tokens = [_tokens(k, vocabulary, rng) for k in range(K)]
    density = [0.0, *_rounded(10 ** rng.uniform(-5, -0.5, K - 1))]
    m = [None, *_rounded(rng.random(K - 1))]

    def links(k: int) -> list[list[float]]:
        return [[(k + step) % K, round(0.9 - 0.1 * step, 3)] for step in (1, 2, 3)]

    write(folder, f"{id}/latents", {
        "density": density, "mean": [None, *_rounded(rng.random(K - 1))],
        "max": [None, *_rounded(5 * rng.random(K - 1))],
        "selectivity": [None, *_rounded(rng.random(K - 1))], "m": m,
        "class": ["dead", *(CLASSES[1 + k % 4] for k in range(1, K))],
        "concept": [None, HOSTILE[0], *(f"token:{tokens[k][0]}" for k in range(2, K))],
        "label": [None, HOSTILE[1], "the name Lily", "the name Sue", *[None] * (K - 4)],
        "stability": [None, *_rounded(rng.random(K - 1))], "alive": [False, *[True] * (K - 1)],
        "neighbours": [links(k) for k in range(K)],
        "correlated": [links(k + 3) for k in range(K)],
        "partner": [{other: [k + shift, 0.97]} if 4 < k < K - 1 else {} for k in range(K)],
        "lens_up": [list(HOSTILE[:8]) if k == 1 else list(WORDS[:8]) for k in range(K)],
        "lens_down": [list(NAMES) for _ in range(K)],
        "top_tokens": [list(dict.fromkeys(t)) for t in tokens],
    })  # fmt: skip
    details = [_detail(k, K, tokens[k], rng) for k in range(K)]
    for n, start in enumerate(range(0, K, chunk_size)):
        write(folder, f"{id}/contexts/{n}", details[start : start + chunk_size])
    peaks: dict[str, list[int]] = {}
    for k, row in enumerate(tokens):
        for token in dict.fromkeys(row):
            peaks.setdefault(token, []).append(k)
    write(folder, f"{id}/tokens", list(peaks.items()))


def _detail(k: int, K: int, tokens: list[str], rng: np.random.Generator) -> dict[str, Any]:  # noqa: N803
    if not tokens:
        return {"quantiles": [], "concepts": []}

    def context(token: str, i: int, activation: float) -> dict[str, Any]:
        return {"before": f"{tokens[0]} once upon a time there was a", "token": token,
                "after": "who went to the park with her friend .", "document": 100 + i,
                "position": i, "activation": round(activation, 3),
                "shade": [[0, 4, 1.2]]}  # fmt: skip

    weights = rng.standard_normal(8).round(3).tolist()
    near = [(k + step) % K for step in range(12)]
    return {
        "histogram": {"edges": [round(0.25 * i, 3) for i in range(17)],
                      "counts": rng.integers(1, 900, 16).tolist(),
                      "specificity": [round(i / 15, 2) for i in range(16)] if k % 2 else None},
        "quantiles": [
            {"name": name,
             "contexts": [context(t, i, high - 0.1 * i) for i, t in enumerate(tokens)]}
            for name, high in (("Strongest", 4.0), ("Middle", 2.0))
        ],
        "concepts": [[f"token:{tokens[0]}", 0.83, 0.61, 0.52], ["name", 0.41, None, None]],
        "parents": {"sae": "topk-x8-k16.seed-0", "latents": [[k, 0.9, 0.8, tokens[:3]]]},
        "children": {"sae": "elsewhere", "latents": [[k, 0.7, 0.95, tokens[:3]]], "more": 2},
        "decoder": {"top": [[i, abs(w)] for i, w in enumerate(weights[:4])],
                    "bottom": [[40 + i, -abs(w)] for i, w in enumerate(weights[4:])],
                    "histogram": {"edges": [-0.3, -0.1, 0.1, 0.3], "counts": [9, 40, 15]}},
        "judge": [["detection", 0.9], ["fuzzing", 0.75]],
        "map": [[n, *rng.standard_normal(2).round(3).tolist()] for n in near],
    }  # fmt: skip


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
