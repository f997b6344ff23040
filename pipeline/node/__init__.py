"""One process that runs every shard and the synchronizer over a directory."""
