"""The rules of the ledger, pure: records, operations, gas, engine, channels, blocks."""
