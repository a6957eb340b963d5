"""The HTTP edge of workflow_engine."""
