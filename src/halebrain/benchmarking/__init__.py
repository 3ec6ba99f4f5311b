"""Methods × regimes × training pathologies × test sets × seeds, trained and compared by one command."""
