"""What a worker does for the logs whose home it is: numbering, commit, interest, rosters, names."""
