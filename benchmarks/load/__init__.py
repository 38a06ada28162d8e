"""Who loads a server: publishers, subscribers, crowds, each in processes of their own."""
