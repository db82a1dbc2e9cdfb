"""MIKEY key management: RFC 3830, 4567."""
