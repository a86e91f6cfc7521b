"""From probabilities to masks: rules learned on out-of-fold predictions. Knows no deep-learning framework."""
