"""Latents of an SAE as the files that SAEDashboard writes and Neuronpedia reads, and model cards.

Nothing of SAEDashboard is needed to write them; its dataclasses load them.
"""

from sae_repro.dashboards.card import model_card
from sae_repro.dashboards.neuronpedia import Place, write_neuronpedia
from sae_repro.dashboards.sources import Source, check_tokens, source

__all__ = ["Place", "Source", "check_tokens", "model_card", "source", "write_neuronpedia"]
