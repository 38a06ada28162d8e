"""What any storage backend of logs must do."""
