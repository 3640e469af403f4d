"""A regression that eight processes on four nodes learn together, with gloo and no GPU.

The data are made from fixed seeds, a different part for each rank, so that two runs learn the same and the
ranks can only agree by talking to each other.
"""

import os
import socket
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

STEPS = int(os.environ.get("STEPS", "60"))
BATCH = 64
FEATURES = 32


def part_of(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The data of a rank: targets are one function of the inputs for all."""
    truth = torch.randn(FEATURES, 1, generator=torch.Generator().manual_seed(1))
    inputs = torch.randn(BATCH, FEATURES, generator=torch.Generator().manual_seed(100 + rank))
    return inputs, torch.tanh(inputs @ truth / FEATURES**0.5)


def digest(model: torch.nn.Module) -> torch.Tensor:
    """One number for all weights."""
    return sum(value.detach().double().abs().sum() for value in model.parameters())


def main() -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    local, node = int(os.environ["LOCAL_RANK"]), int(os.environ["GROUP_RANK"])
    wanted = int(os.environ["NNODES"]) * int(os.environ["NPROC_PER_NODE"])
    assert world == wanted, f"{world} ranks, not {wanted}"
    assert node == int(os.environ["NODE_RANK"]), (
        f"torchrun says node {node}, phalanx {os.environ['NODE_RANK']}"
    )
    print(
        f"here: rank {rank} of {world}, local rank {local}, node {node}, host {socket.gethostname()}",
        flush=True,
    )

    torch.manual_seed(0)
    layers = torch.nn.Linear(FEATURES, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)
    model = DistributedDataParallel(torch.nn.Sequential(*layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    inputs, targets = part_of(rank)
    first, began = 0.0, time.perf_counter()
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        first = first or mean.item() / world
        if rank == 0 and step % 20 == 0:
            print(f"step {step}: loss {mean.item() / world:.6f}", flush=True)
    seconds = time.perf_counter() - began

    last = mean.item() / world
    assert last < first / 2, f"the loss fell only from {first:.6f} to {last:.6f}"
    seen = [torch.zeros((), dtype=torch.float64) for _ in range(world)]
    dist.all_gather(seen, digest(model.module))
    assert all(torch.equal(one, seen[0]) for one in seen), f"the ranks have learnt different weights: {seen}"
    if rank == 0:
        print(f"loss {first:.6f} to {last:.6f} in {STEPS} steps, {seconds:.1f} s", flush=True)
        print(f"performance: {STEPS * BATCH * world / seconds:.1f} samples/s", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
