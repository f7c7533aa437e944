"""Floor 1: logs in, canonical tables out."""
