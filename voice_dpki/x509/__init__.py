"""The certificate profile of the ledger, TNAuthList, and keys."""
