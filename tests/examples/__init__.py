"""The programs in examples/ and in docs/client.md, against a real relay."""
