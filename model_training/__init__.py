"""Makes model folders from data; no service imports it."""
