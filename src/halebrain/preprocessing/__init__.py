"""From a raw scan to the working grid and back; every step is recorded so that it can be undone."""
