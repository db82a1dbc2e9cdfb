"""Ledger node: engine, submission node and inquiry node."""
