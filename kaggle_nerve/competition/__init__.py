"""What Kaggle fixed: the competition's facts, run-length encoding, metric and submission format."""
