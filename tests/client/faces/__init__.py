"""One suite over both faces of the client, against a real relay."""
