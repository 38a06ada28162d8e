"""The user interface: sanitised text, lines, the chat in a terminal. Contains no protocol."""
