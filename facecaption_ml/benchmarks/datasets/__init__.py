"""The readers of the benchmarks' data sets, a module each: a folder or S3 prefix in the authors' layout, with their split."""
