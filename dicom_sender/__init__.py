"""Storage SCU: attaches results to the PACS."""
