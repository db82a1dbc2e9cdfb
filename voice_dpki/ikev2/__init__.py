"""IKEv2: device and security gateway, with each other's certificate judged by the ledger (RFC 7296)."""
