"""Floor 2: what may be learned from, what is measured."""
