"""A partition's file: its tables, how it is created, opened, checked, kept short and closed."""
