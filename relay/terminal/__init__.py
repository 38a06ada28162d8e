"""What people see: text made harmless, lines, the chat in a terminal. No protocol in here."""
