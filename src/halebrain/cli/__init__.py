"""One file per command; parse, call one function, exit. Heavy imports are inside the commands."""
