"""The partitions that a worker owns, their files and search indexes, and free space for them."""
