"""What a command prints and asks: harmless text, JSON lines, tables, questions, hidden input."""
