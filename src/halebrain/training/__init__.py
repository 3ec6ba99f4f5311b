"""Layer 5: one training loop, and the two stages that it trains."""
