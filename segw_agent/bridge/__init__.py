"""The bridge: gateways and devices that know only a CA and OCSP follow the ledger too (docs/strongswan-ocsp.md)."""
