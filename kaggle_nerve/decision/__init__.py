"""Turn probabilities into masks by rules learned on out-of-fold predictions, without a deep-learning framework."""
