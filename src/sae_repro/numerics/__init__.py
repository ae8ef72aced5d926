"""Randomness and uncertainty: named generators, hash draws, bootstrap, intervals, determinism."""
