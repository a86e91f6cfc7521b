"""Competition rules: its facts, run-length encoding, metric and submission format."""
