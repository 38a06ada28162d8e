"""Accounts: who a name belongs to, as folds over logs. No I/O; signatures are checked by others."""
