"""What projects find as ``scripts/common``: data of this package, and programs that run inside containers."""
