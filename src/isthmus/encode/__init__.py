"""Floor 3: item table in, vectors out."""
