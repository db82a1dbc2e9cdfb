"""Authentication server: signs the INVITEs of one domain."""
