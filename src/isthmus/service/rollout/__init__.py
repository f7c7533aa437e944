"""Which model answers: versions, trials, signatures."""
