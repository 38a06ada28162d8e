"""Options and arguments that several commands have: addresses, aliases, names, numbers, texts."""
