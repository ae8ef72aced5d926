"""Consistency: do the seeds of a cell find the same latents?

A pass per cell with `seeds`, after its SAEs are evaluated: `job` is cached by content as they are,
`delivery` puts what it finds beside them.
"""

from sae_repro.evaluate.consistency.delivery import FOLDER, deliver, with_consistency
from sae_repro.evaluate.consistency.job import ConsistencyJob, job_of

__all__ = ["FOLDER", "ConsistencyJob", "deliver", "job_of", "with_consistency"]
