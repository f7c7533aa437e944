"""Checks and generators that make uses; no part of the package."""
