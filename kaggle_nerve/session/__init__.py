"""Entry points for Kaggle notebooks: the last cells of the generated notebooks call them."""
