"""What a worker does for the clients that follow logs or send to them; homes are elsewhere."""
