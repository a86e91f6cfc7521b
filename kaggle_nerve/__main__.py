"""``python -m kaggle_nerve``: the same as the console script."""

from kaggle_nerve.cli import main

main()
