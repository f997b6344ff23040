"""The demo: real payments played over shards, a balance proved, the log audited, lies about it caught."""
