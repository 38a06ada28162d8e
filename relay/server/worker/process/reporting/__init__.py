"""What a worker publishes about itself."""
