"""Encodings that several standards share."""
