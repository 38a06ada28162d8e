"""Which connections a worker accepts, whom they are from, and which clients it sends to others."""
