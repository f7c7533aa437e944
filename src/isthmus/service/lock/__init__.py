"""Who may ask for what, how often, and what people forbade."""
