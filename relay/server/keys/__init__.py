"""The files of the server's keys, and the passphrase that opens them."""
