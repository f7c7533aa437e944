"""The service: events in, lists out, in real time; see docs/service.md."""
