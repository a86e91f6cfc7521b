"""The presets: one TOML file each, read by :mod:`kaggle_nerve.settings`."""
