"""The ledger's decision at a security gateway: an agent beside an IKEv2 daemon, a gateway and a device."""
