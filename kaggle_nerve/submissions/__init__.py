"""Submissions: uploaded once and recorded in the ledger, compared, and merged."""
