"""Floor 8: figures and pages; reads tables and arrays, never runs a network."""
