"""Storms: thousands return at once, hostile handshakes, and who spends all budgets."""
