"""What any backend of logs must do, whatever it is made of."""
