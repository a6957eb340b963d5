"""A study in, findings and result objects out."""
