"""A worker's role as home of logs: commits, publishing, rosters, names, accounts, rooms."""
