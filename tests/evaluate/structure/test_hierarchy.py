"""The hierarchy of concepts: parents and children from labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.sparse import csc_array

from sae_repro.concepts.bank import ConceptBank, load_bank
from sae_repro.corpus.writing import write_stories
from sae_repro.evaluate.metrics.structure.hierarchy import hierarchy
from sae_repro.evaluate.metrics.structure.sample import Sample
from sae_repro.params import Corpus, StoriesSource
from sae_repro.readers.documents import TokenDocuments

N = 8_000


def children(bank: ConceptBank) -> dict[str, list[str]]:
    families = hierarchy(bank).families
    return {bank.names[f.parent]: [bank.names[c] for c in f.children] for f in families}


def test_containment_size_and_place_make_a_child(planted: Callable[..., Sample]) -> None:
    rng = np.random.default_rng(0)
    u = rng.random(N)
    columns = {
        "parent": u < 0.4,
        "large": u < 0.1,
        "larger": (u >= 0.1) & (u < 0.3),
        "grandchild": u < 0.03,
        "small": (u >= 0.35) & (u < 0.365),  # 3.75 % of the parent
        "almost": ((u >= 0.2) & (u < 0.28)) | (u > 0.995),  # a few of its tokens lie outside
        "twin": u < 0.1,
        "common": u < 0.8,
        "previous:inside": u < 0.2,
    }
    kinds = ("class",) * 8 + ("previous",)
    sample = planted(
        np.stack(list(columns.values()), axis=1), np.zeros((N, 2)), names=tuple(columns),
        kinds=kinds,
    )  # fmt: skip
    assert children(sample.bank) == {
        "parent": ["larger", "large", "grandchild"],
        "large": ["grandchild"],
    }
    tree = hierarchy(sample.bank)
    assert (tree.duplicates, tree.too_common, tree.small_children) == (1, 1, 1)


def test_the_test_half_decides_no_hierarchy(planted: Callable[..., Sample]) -> None:
    rng = np.random.default_rng(1)
    labels = rng.random((N, 2)) < (0.4, 0.1)
    fit = planted(labels, np.zeros((N, 1))).bank.fit
    labels[fit, 1] &= labels[fit, 0]
    assert children(planted(labels, np.zeros((N, 1))).bank) == {"c0": ["c1"]}
    labels[np.flatnonzero(fit & ~labels[:, 0])[0], 1] = True
    assert children(planted(labels, np.zeros((N, 1))).bank) == {}


def test_a_bank_without_concepts_has_no_family(planted: Callable[..., Sample]) -> None:
    assert hierarchy(planted(np.zeros((N, 0)), np.zeros((N, 1))).bank).families == ()


def test_the_story_grammars_own_tree_is_found(tmp_path: Path) -> None:
    source = StoriesSource(kind="stories", n_documents=3000)
    write_stories(Corpus(source=source, validation=0.5), source, 1, tmp_path)
    corpus = TokenDocuments.load(tmp_path)
    index = np.array(
        [
            (d, p, int(token))
            for d in corpus.split("validation").tolist()
            for p, token in enumerate(corpus.document(d))
        ],
        dtype=np.int32,
    )
    bank = load_bank(tmp_path, index, 0)
    by_parent = children(bank)
    assert "female_name" in by_parent["female"]
    assert "female_name" in by_parent["name"]
    # a name is its own token: whichever concept of the two stands first, it speaks for both
    assert {"token:Lily", "female_name:Lily"} & set(by_parent["female_name"])
    assert {"token:Lily", "female_name:Lily"} & set(by_parent["female"])
    labels = csc_array(bank.labels).toarray()[bank.fit]
    number = {name: i for i, name in enumerate(bank.names)}
    for parent, names in by_parent.items():
        for child in names:
            assert not (labels[:, number[child]] & ~labels[:, number[parent]]).any()
