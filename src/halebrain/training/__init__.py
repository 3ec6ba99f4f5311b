"""One training loop, and the two stages that it trains."""
