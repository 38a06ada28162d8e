"""The index of words: which messages of a log have these? A file of its own for each partition."""
