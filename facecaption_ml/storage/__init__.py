"""Where a table or a checkpoint lives: a local folder or S3, whole objects, atomic writes."""
