"""Output to clients' sockets: batches, outboxes, streams, and stalled connections."""
