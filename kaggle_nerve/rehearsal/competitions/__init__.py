"""Competitions of the rehearsal: what is served, Kaggle's calls about it, submissions and their scores."""
