"""Watching the service: figures, health, drift, traces; the alert rules and the dashboard that are shipped."""
