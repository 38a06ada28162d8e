"""Operator actions on a relay, under a constant load: ``make drill``, ``make soak``."""
