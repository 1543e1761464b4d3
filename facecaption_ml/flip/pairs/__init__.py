"""Picture–caption pairs, streamed from shards in an order that follows from the seed."""
