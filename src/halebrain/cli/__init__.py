"""Floor 9: one file a verb; parse, call one function, exit. Heavy imports live inside the commands."""
