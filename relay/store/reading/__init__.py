"""Reading the logs of a partition, in any process, while its writer continues."""
