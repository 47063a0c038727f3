"""Files: written whole or not at all, locked, checked by checksums, read as JSON or Parquet."""
