"""Fuzzing: ``make fuzz`` looks for inputs that break a promise. See docs/reliability.md."""
