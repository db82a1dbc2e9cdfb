"""Clients of ledger nodes, which verify every answer, and subscriptions that keep answers current."""
