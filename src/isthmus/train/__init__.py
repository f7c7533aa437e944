"""Floor 5: settings chosen on validation."""
