"""Text preprocessing."""
