"""Determinism of torch in this process: threads, device, kernels. Called by stages only.

Which kernels the libraries choose is decided before they are imported: `numerics.kernels`.
"""

import os

from sae_repro.errors import StudyError
from sae_repro.numerics.kernels import check, in_use


def prepare(*, device: str, threads: int) -> None:
    """Pin the thread count and deterministic kernels, which decide the bits of a result.

    StudyError where `device` is a GPU that this machine lacks.
    """
    # cuBLAS is deterministic only with a fixed workspace, read at its first use
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise StudyError(f"device = {device}: no GPU here; set device: cpu in params.yaml")
    check()
    if in_use() == "portable":
        from sae_repro.numerics.products import install

        install()
    torch.set_num_threads(threads)
    # the same as use_deterministic_algorithms(True), which loads torch's compiler: a second
    torch.set_deterministic_debug_mode("error")
    # no tensor here is read before it was written: filling new ones first only costs time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
