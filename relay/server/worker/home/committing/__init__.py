"""What was submitted to a home's logs: queues for each partition, and group commits."""
