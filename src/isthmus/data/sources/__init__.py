"""Readers, one a format: files in, batches of raw rows out, with the line each row came from."""
