"""Layers from node to node: a cache of blobs, a server that gives chunks out, a puller that gets them.

The data plane runs in threads with blocking sockets: digests, files and ciphers release the interpreter lock,
and no heartbeat waits for them. Nothing here is imported before the agent has joined.
"""
