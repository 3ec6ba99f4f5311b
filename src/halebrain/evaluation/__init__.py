"""Metrics and statistics; evaluates maps from disk and never runs a network."""
