"""Signature suites, addresses and the keystore."""
