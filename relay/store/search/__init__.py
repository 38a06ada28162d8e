"""The word index: which messages of a log contain given words? One file per partition."""
