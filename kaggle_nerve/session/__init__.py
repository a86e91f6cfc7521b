"""What runs in a Kaggle notebook in the command line's place: the generated notebooks' last cells call it."""
