"""How long a search of a large room takes while people chat."""
