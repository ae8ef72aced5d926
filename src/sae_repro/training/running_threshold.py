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
        if self.mean.device.type != "cpu":
            self.mean.copy_(moved(self.mean, smallest))
        # to the bit the same: asking costs less than computing all outcomes
        elif math.isfinite(smallest.item()):
            if math.isnan(self.mean.item()):
                self.mean.copy_(smallest)
            else:
                self.mean.lerp_(smallest, 1 - THRESHOLD_DECAY)


def moved(mean: Tensor, smallest: Tensor) -> Tensor:
    """The mean after one more step's value; it waits for no device to answer."""
    following = torch.where(mean.isnan(), smallest, mean.lerp(smallest, 1 - THRESHOLD_DECAY))
    return torch.where(smallest.isfinite(), following, mean)
