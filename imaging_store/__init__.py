"""What is kept: instances and artifacts, and the tables that describe them."""
