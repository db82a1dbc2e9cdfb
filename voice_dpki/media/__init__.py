"""Encrypted voice: SRTP sessions, playout, codecs, recordings."""
