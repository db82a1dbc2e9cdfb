"""IKEv2 between device and security gateway, which judge each other's certificate by the ledger (RFC 7296)."""
