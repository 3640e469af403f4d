"""From a file of results to documents of a MongoDB collection."""
