"""From models to probabilities: the folds' ensemble on the test frames, and reading what was stored."""
