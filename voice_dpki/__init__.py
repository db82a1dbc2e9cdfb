"""Decentralised PKI for voice: cores without I/O, and the thin shells that every service shares."""
