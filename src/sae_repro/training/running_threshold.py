"""The running mean of BatchTopK's smallest selected score, recorded and never used.

The threshold of the saved SAE is calibrated after training: `finishing.finished_sae`.
"""

import torch
from torch import Tensor

THRESHOLD_DECAY = 0.99


class RunningThreshold:
    """The mean over steps, an exponential one that starts at the first step's value.

    Training never reads it: it is recorded beside the calibrated threshold.
    """

    def __init__(self, device: torch.device) -> None:
        self.mean = torch.tensor(torch.nan, device=device)

    def follow(self, smallest: Tensor) -> None:
        """Take in the smallest selected score of a step; +∞: nothing fired."""
        moved = self.mean.lerp(smallest, 1 - THRESHOLD_DECAY)
        moved = torch.where(self.mean.isnan(), smallest, moved)
        self.mean.copy_(torch.where(smallest.isfinite(), moved, self.mean))
