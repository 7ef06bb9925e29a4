"""A run and its directory: preparation, checkpoints, metrics and samples, hooks of the loop, collapse."""
