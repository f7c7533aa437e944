"""Who is known, what may be listed, and lists kept ready."""
