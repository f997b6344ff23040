"""Authenticated state, pure: slot trees, proofs, RFC 6962 lists."""
