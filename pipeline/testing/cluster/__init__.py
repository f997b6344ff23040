"""A ledger on a cluster under test: clients that record what they are told, and a checker of those histories."""
