"""What a rank is told about its world: the environment contract of distributed programs."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """This rank, how many there are, and where rank 0 can be met."""

    rank: int
    size: int
    node_rank: int
    nodes: int
    master_addr: str
    master_port: int

    @classmethod
    def from_environment(cls, environ=os.environ):
        """Read RANK, WORLD_SIZE, NODE_RANK, NNODES, MASTER_ADDR, MASTER_PORT. Raises SystemExit in words."""
        try:
            world = cls(
                rank=int(environ.get("RANK", "0")),
                size=int(environ.get("WORLD_SIZE", "1")),
                node_rank=int(environ.get("NODE_RANK", "0")),
                nodes=int(environ.get("NNODES", "1")),
                master_addr=environ.get("MASTER_ADDR", "127.0.0.1"),
                master_port=int(environ.get("MASTER_PORT", "0")),
            )
        except ValueError as error:
            raise SystemExit(f"cannot read the environment contract: {error}") from error
        if not 0 <= world.rank < world.size:
            raise SystemExit(f"cannot run: RANK {world.rank} is not below WORLD_SIZE {world.size}")
        if world.size > 1 and not 0 < world.master_port < 65536:
            raise SystemExit("cannot run more than one rank: MASTER_PORT is not set")
        return world
