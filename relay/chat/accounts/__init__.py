"""Accounts: who a name belongs to, as folds over logs. No I/O; signature checks are passed in."""
