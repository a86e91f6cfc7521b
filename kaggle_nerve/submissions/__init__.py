"""Submissions: sent once and remembered in the ledger, compared, and merged."""
