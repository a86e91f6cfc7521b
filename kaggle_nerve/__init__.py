"""kaggle-nerve: from Kaggle's Ultrasound Nerve Segmentation files to a score on its leaderboard."""

import os

# TensorFlow decides at its import whether convolutions on a processor take oneDNN's kernels, and by itself
# does so on few processors; without them a training step was measured to take three times as long.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"
