"""A worker's role as home of logs: numbering, commits, subscriptions, rosters, names."""
