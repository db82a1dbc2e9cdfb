"""Making what a node starts with: a new ledger, a joining node, a member's record."""
