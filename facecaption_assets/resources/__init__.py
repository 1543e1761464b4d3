"""What assets are given: store, source, downloader, models, benchmarks."""
