"""Layer 5: one training loop, and the two stages that it trains."""

from halebrain.core.home import settle_matplotlib

settle_matplotlib()  # Lightning imports it, for metrics that could draw
