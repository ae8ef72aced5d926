"""Comparison of a study's results with the recorded ones, or with another checkout's.

Bit for bit; where files differ, number by number, with the likely cause.
"""

from sae_repro.verify.files import verify
from sae_repro.verify.recorded import record_machine, verify_other, verify_recorded
from sae_repro.verify.verdict import Difference, Verdict

__all__ = [
    "Difference",
    "Verdict",
    "record_machine",
    "verify",
    "verify_other",
    "verify_recorded",
]
