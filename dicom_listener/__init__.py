"""Storage SCP: accepts, keeps and announces studies."""
