"""Matplotlib figures of frames, labels and runs, for notebooks and reports. They are neither shown nor saved here."""
