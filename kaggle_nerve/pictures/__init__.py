"""Figures of frames, labels and runs, by matplotlib: for notebooks and reports. Nothing is shown or written here."""
