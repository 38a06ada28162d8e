"""Making a whole file from what can be read in a damaged one."""
