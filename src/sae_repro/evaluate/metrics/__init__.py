"""The metrics that `evaluate.metrics` chooses among: metric M lies in the package M."""
