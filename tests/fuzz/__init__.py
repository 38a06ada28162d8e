"""Fuzzing: ``make fuzz`` looks for inputs that break a guarantee. See docs/reliability.md."""
