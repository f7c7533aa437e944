"""Transfer: strategies, and what to carry over."""
