"""Samples of planted latents and concepts for the tests of structure."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.sparse import csc_array

from sae_repro.concepts.bank import ConceptBank
from sae_repro.concepts.halves import in_fit
from sae_repro.evaluate.metrics.structure.sample import Sample

LENGTH = 20  # tokens of a document
SEED = 3


def planted_sample(
    labels_nc: np.ndarray,
    a_nk: np.ndarray,
    *,
    names: tuple[str, ...] | None = None,
    kinds: tuple[str, ...] | None = None,
    x_nd: np.ndarray | None = None,
    d_kd: np.ndarray | None = None,
) -> Sample:
    """A sample of given labels and canonical activations; x is the reconstruction unless given."""
    n, c = labels_nc.shape
    d_kd = np.eye(a_nk.shape[1]) if d_kd is None else d_kd
    norm = np.linalg.norm(d_kd, axis=1, keepdims=True)
    x_nd = a_nk @ (d_kd / np.where(norm > 0, norm, 1)) if x_nd is None else x_nd
    document = np.arange(n) // LENGTH
    return Sample(
        x_nd=x_nd.astype(np.float32),
        a_nk=csc_array(a_nk.astype(np.float32)),
        d_kd=d_kd.astype(np.float32),
        mean_d=x_nd.astype(np.float64).mean(axis=0),
        bank=ConceptBank(
            names=names or tuple(f"c{i}" for i in range(c)),
            kinds=kinds or ("class",) * c,
            labels=csc_array(labels_nc.astype(bool)),
            document=document,
            position=np.arange(n) % LENGTH,
            token=np.zeros(n, dtype=np.int64),
            fit=in_fit(SEED, document),
            left_out={},
        ),
    )


@pytest.fixture
def planted() -> Callable[..., Sample]:
    """`planted_sample`, for structure metrics."""
    return planted_sample
