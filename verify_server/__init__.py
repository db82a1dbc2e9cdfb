"""Verification server: verifies the INVITEs that reach one domain, resolving signers on its own inquiry node."""
