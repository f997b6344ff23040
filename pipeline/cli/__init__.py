"""The `hauptbuch` command."""
