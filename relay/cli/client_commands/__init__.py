"""The commands of a server's users, and of its operators from afar, over the protocol."""
