"""Floor 2: from a scan as it comes to the working grid, and back; every step is recorded so that it can be undone."""
