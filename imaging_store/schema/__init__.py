"""The tables, grouped by the one package whose code writes them."""
