"""What tests share: real servers, in-memory pairs, test peers."""
