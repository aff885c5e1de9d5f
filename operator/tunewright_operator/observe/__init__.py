"""Pure views of raw children as frozen buckets."""
