"""Direct messages: permission from the recipient's home before, copies to its log afterwards."""
