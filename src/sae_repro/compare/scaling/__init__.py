"""Scaling laws of families of cells: fits, compute-optimal widths, predictions of larger cells."""
