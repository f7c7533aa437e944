"""Floor 4: methods that score items for a history."""
