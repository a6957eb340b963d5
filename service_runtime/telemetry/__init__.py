"""Logs, metrics and traces, none of which can carry a patient's data."""
