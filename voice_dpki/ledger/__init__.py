"""The federation ledger: transactions, state, tree, proofs, light client."""
