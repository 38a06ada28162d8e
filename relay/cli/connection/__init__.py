"""A command's connection to a server: the server's key, who logs in, errors as one line."""
