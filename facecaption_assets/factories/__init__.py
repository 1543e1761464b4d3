"""The one way a shard asset and an asset over the whole data set run."""
