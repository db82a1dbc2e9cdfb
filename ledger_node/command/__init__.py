"""The program `ledger-node` with its configuration, and `voice-dpki ledger` and `voice-dpki federation`."""
