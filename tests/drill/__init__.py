"""What an operator does to a relay, under a constant load: ``make drill``, ``make soak``."""
