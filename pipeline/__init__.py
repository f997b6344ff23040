"""Hauptbuch: a sharded, event-sourced ledger on Kafka whose state anyone can verify."""
