"""What is measured, and beside whom; each module prints JSON."""
