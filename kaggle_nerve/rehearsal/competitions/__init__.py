"""Competitions of the rehearsal: the served data, Kaggle's calls about it, submissions and their scores."""
