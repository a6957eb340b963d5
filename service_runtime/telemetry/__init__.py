"""Structured logs and metrics, neither of which can carry patient data."""
