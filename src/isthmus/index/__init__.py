"""Floor 8: nearest items."""
