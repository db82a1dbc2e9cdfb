"""The ledger as an application of CometBFT: ABCI 2.0 over a Unix socket."""
