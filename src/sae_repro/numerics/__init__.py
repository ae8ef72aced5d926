"""What decides numbers everywhere: named generators, hash draws, intervals, determinism."""
