"""Evaluation: ranks, metrics, intervals and tests, the protocol, the report. Judges any system, knows no model."""
