"""From the competition's files to arrays: frames, cache, folds, batches, and the synthetic phantom."""
