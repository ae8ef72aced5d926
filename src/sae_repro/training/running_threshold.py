"""The running mean of BatchTopK's smallest selected score, recorded and never used.

The threshold of the saved SAE is calibrated after training: `finishing.finished_sae`.
"""

import math

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
        if self.mean.device.type == "cpu":  # where asking costs less than computing all outcomes
            if not math.isfinite(smallest.item()):
                return
            if math.isnan(self.mean.item()):
                self.mean.copy_(smallest)
            else:
                self.mean.lerp_(smallest, 1 - THRESHOLD_DECAY)
            return
        moved = self.mean.lerp(smallest, 1 - THRESHOLD_DECAY)
        moved = torch.where(self.mean.isnan(), smallest, moved)
        self.mean.copy_(torch.where(smallest.isfinite(), moved, self.mean))
