"""kaggle-nerve: from Kaggle's Ultrasound Nerve Segmentation files to a score on its leaderboard."""

__version__ = "0.1.0"
