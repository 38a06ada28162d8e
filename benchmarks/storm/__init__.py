"""Storms: thousands of clients return at once, hostile handshakes, and clients that use up their
budgets.
"""
