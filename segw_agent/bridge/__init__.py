"""The bridge to the ledger for gateways and devices that support only a CA and OCSP (docs/strongswan-ocsp.md)."""
