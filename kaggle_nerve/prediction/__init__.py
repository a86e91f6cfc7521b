"""Predict probabilities with the folds' models, and read stored predictions."""
