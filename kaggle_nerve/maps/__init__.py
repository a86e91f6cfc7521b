"""Probability maps: quantise, enlarge, combine, and match an ensemble's to those of a single fold."""
