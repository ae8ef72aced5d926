"""The entries of one metric, or of several, in metrics.json."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Metrics by name, with the counts behind them and their 95 % intervals."""

    metrics: dict[str, float | None]
    counts: dict[str, int]
    intervals: dict[str, list[float]]

    def __or__(self, other: "Summary") -> "Summary":
        """Both together."""
        return Summary(
            self.metrics | other.metrics,
            self.counts | other.counts,
            self.intervals | other.intervals,
        )
