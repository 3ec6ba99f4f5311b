"""Figures and pages; reads tables and arrays, never runs a network."""

from halebrain.core.home import settle_matplotlib

settle_matplotlib()  # every module that draws lies below, and none is imported before this one
