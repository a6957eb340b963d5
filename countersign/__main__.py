"""``python -m countersign``."""

from countersign.cli import app

app()
