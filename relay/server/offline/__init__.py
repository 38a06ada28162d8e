"""Work on a data directory without its server: accounts, export, import, repair, keys."""
