"""Read the competition's files into arrays: frames, cache, folds and batches."""
