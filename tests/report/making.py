"""Runs and tables as people have them, and as nobody should, made by hand."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from phalanx.controller.fleet import events as ev
from phalanx.controller.results.perf_csv import COLUMNS, append_rows
from phalanx.controller.runs.directory import RunDirectory

from tests.runs.stories import RUN, START

#: What must show as text: markup, handlers, addresses, directions, escapes, ends of lines of JavaScript.
EVIL = (
    "<script>window.hacked=1</script>",
    '"><img src=x onerror=window.hacked=2>',
    "' onmouseover='window.hacked=3",
    "javascript:window.hacked=4",
    "</script><script>window.hacked=5</script>",
    "</style><svg onload=window.hacked=6>",
    "a\u2028b\u2029c",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "nul\x00here",
    "txt.\u202egpj\u202c",
    "{{ 7*7 }}{% raw %}",
    "=cmd|' /C calc'!A0",
    "@SUM(A1)",
    "<a href=//evil.example>x</a>",
    "https://user:hunter2pass@host/x",
)


def row(model: str, performance: str = "", metric: str = "", **more: str) -> dict[str, str]:
    """A row of perf.csv."""
    status = "SUCCESS" if performance else "FAILURE"
    blank = dict.fromkeys(COLUMNS, "")
    return {**blank, "model": model, "performance": performance, "metric": metric, "status": status, **more}


def table(path: Path, rows: Iterable[Mapping[str, str]]) -> Path:
    """A CSV file as another program writes it: nothing is guarded."""
    known = list(rows)
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for one in known for name in one)))
        writer.writeheader()
        writer.writerows(known)
    return path


MODELS = (
    ("pyt_vllm_llama-3.1-70b", "tok/s", 11_240.0, "vllm", "8"),
    ("pyt_vllm_llama-3.1-8b", "tok/s", 42_310.0, "vllm", "1"),
    ("pyt_sglang_deepseek-r1", "tok/s", 6_120.0, "sglang", "16"),
    ("pyt_megatron_lm_train_llama2_70b", "TFLOPS/GPU", 412.7, "megatron-lm", "32"),
    ("pyt_torchtitan_llama3_405b", "tokens/s/GPU", 182.4, "torchtitan", "64"),
    ("pyt_huggingface_bert", "samples_per_second", 1_384.0, "torchrun", "8"),
    ("tf_resnet50", "images/s", 12_885.0, "docker", "8"),
    ("rccl_all_reduce", "GB/s", 311.9, "torchrun", "64"),
)


def nightly(count: int, seed: int = 7) -> list[dict[str, str]]:
    """Rows of a nightly table: ``count`` of them, models in turn, with noise, a slow drift and failures."""
    dice = random.Random(seed)
    found = []
    for place in range(count):
        model, metric, base, launcher, gpus = MODELS[place % len(MODELS)]
        night = place // len(MODELS)
        drift = 1 + 0.0025 * night * (1 if model != "tf_resnet50" else -2)
        failed = dice.random() < 0.06
        value = base * min(max(drift, 0.6), 1.6) * dice.gauss(1, 0.015)
        nodes = max(1, int(gpus) // 8)
        more = {
            "n_gpus": gpus,
            "nnodes": str(nodes),
            "gpus_per_node": str(min(8, int(gpus))),
            "training_precision": "bf16" if "train" in model or "titan" in model else "fp8",
            "args": f"--model {model} --batch-size {dice.choice((16, 32, 64))} --input-len 1024",
            "tags": "pyt,nightly,multi_node" if nodes > 1 else "pyt,nightly",
            "docker_file": f"docker/{model}.ubuntu.amd.Dockerfile",
            "docker_sha": f"sha256:{dice.getrandbits(64):016x}",
            "docker_image": f"ci-{model}_{model}.ubuntu.amd",
            "git_commit": f"{dice.getrandbits(28):07x}",
            "machine_name": str(881_000 + night),
            "deployment_type": "slurm",
            "launcher": launcher,
            "gpu_architecture": "gfx942",
            "build_number": str(4000 + night),
            "test_duration": f"{dice.uniform(280, 2900):.2f}",
        }
        found.append(row(model, "" if failed else f"{value:.2f}", "" if failed else metric, **more))
    return found


def write_run(root: Path, events: Iterable[ev.Recorded], run_id: str = RUN) -> RunDirectory:
    """A run directory with an event log."""
    path = root / run_id
    (path / "logs").mkdir(parents=True)
    (path / "events.jsonl").write_bytes(b"".join(ev.to_line(run_id, one) for one in events))
    return RunDirectory(path)


def log(run: RunDirectory, name: str, text: str) -> None:
    """A log file of a run; ``name`` below logs/."""
    path = run.logs / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


FACTS = {
    "arch": "x86_64",
    "kernel": "5.15.0-126-generic",
    "python": "3.10.12",
    "cpus_total": 192,
    "memory_bytes": 2_164_000_000_000,
    "engine": {"kind": "docker", "version": "27.3.1", "api": "1.47", "storage": "overlay2"},
    "gpus": [{"vendor": "amd", "model": "Instinct MI300X"}] * 8,
}


class Clock:
    """Events at the times at which they are said to be."""

    def __init__(self) -> None:
        self.events: list[ev.Recorded] = []
        self.now = START

    def at(self, seconds: float, event: ev.Event) -> None:
        """``event``, so many seconds after the start."""
        self.now = max(self.now, START + seconds)
        self.events.append(ev.Recorded(len(self.events) + 1, self.now, event))


def cluster_run(nodes: int = 12, per_node: int = 8) -> list[ev.Recorded]:
    """A run of three models on a cluster: the second has an out-of-memory rank, the third is well."""
    clock, dice = Clock(), random.Random(3)
    names = tuple(f"gpu{number:03d}" for number in range(1, nodes + 1))
    cases = ("pyt_megatron_lm_train_llama2_70b", "pyt_torchtitan_llama3_405b", "rccl_all_reduce")
    image = (
        "rocm/megatron-lm:v25.9",
        "sha256:5c1e00aa11bb22cc33dd44ee55ff66778899aabbccddeeff0011223344556677",
    )
    clock.at(0, ev.RunStarted("nightly", "slurm", nodes, cases, 4242))
    clock.at(0.1, ev.AllocationRequested(("salloc", "--no-shell", "-N", str(nodes), "-p", "gpu")))
    clock.at(11, ev.AllocationGranted("881240", names, True))
    clock.at(11.2, ev.SpawnStarted(("srun", "agent")))
    moments = sorted((12 + dice.uniform(0, 3), rank, name) for rank, name in enumerate(names))
    for moment, rank, name in moments:
        clock.at(moment, ev.AgentJoined(name, rank, f"i{rank}", f"10.2.0.{rank + 1}:41000"))
        facts = {**FACTS, "kernel": "6.8.0-48-generic"} if rank == nodes - 1 else FACTS
        clock.at(moment, ev.AgentFacts(name, facts))
    clock.at(15.5, ev.FleetJoined(nodes, nodes, 4.3))
    for name in names:
        clock.at(15.6, ev.ImageOnNode(name, image[0], ""))
    clock.at(16, ev.ImageSource("engine of the login node", image[0], image[1], 18_400_000_000))
    clock.at(16, ev.ImagePlanned("chain", "", nodes, 18_400_000_000 * nodes, 18_400_000_000, 0, 40.0))
    for moment, name in sorted((52 + dice.uniform(0, 9), name) for name in names):
        clock.at(moment, ev.ImageOnNode(name, image[0], image[1]))
    total = 18_400_000_000 * nodes
    clock.at(62, ev.ImageReady(image[0], image[1], nodes, 46.5, 18_400_000_000, total, 0, "gpu007", 44.9))
    begin = 63.0
    for place, case in enumerate(cases):
        begin = _case(clock, dice, names, per_node, case, begin, failing=place == 1)
    clock.at(begin + 1, ev.AgentNotice("gpu007", "its clock is 1.4 s behind that of the controller"))
    clock.at(begin + 2, ev.RunEnding("all cases are over"))
    clock.at(begin + 3, ev.AllocationReleased("881240"))
    clock.at(begin + 3.2, ev.RunFinished("failed", 3, "1 of 3 models failed"))
    return clock.events


def _case(
    clock: Clock,
    dice: random.Random,
    names: tuple[str, ...],
    per_node: int,
    case: str,
    begin: float,
    *,
    failing: bool,
) -> float:
    """One model: data on each node, the ranks, collection. Returns when it is over."""
    ranks = [
        (name, place * per_node + local) for place, name in enumerate(names) for local in range(per_node)
    ]
    clock.at(begin, ev.CaseStarted(case, names, len(ranks)))
    clock.at(begin + 0.3, ev.StepBegun(case, "pre_script", ("bash", "pre.sh")))
    for name in names:
        clock.at(begin + 0.4, ev.RankStarted(case, "pre_script", name, -1))
    for moment, name in sorted((begin + dice.uniform(6, 14), name) for name in names):
        clock.at(moment, ev.RankExited(case, "pre_script", name, -1, 0, "exited", moment - begin))
    start = begin + 14.5
    clock.at(start, ev.StepBegun(case, "main", ("bash", "run.sh")))
    for name, rank in ranks:
        clock.at(start + 0.1, ev.RankStarted(case, "main", name, rank))
    if failing:
        clock.at(start + 31, ev.RankExited(case, "main", names[4], 35, 137, "oom", 31.0, _OOM))
        clock.at(start + 31.4, ev.RankExited(case, "main", names[4], 36, 1, "exited", 31.4))
        for name, rank in ranks:
            if rank not in (35, 36):
                clock.at(start + 33, ev.RankExited(case, "main", name, rank, 143, "stopped", 33.0))
        words = f"rank 35 on {names[4]}, step main: out of memory"
        rows = (row(case, nnodes=str(len(names)), n_gpus=str(len(ranks)), launcher="torchtitan"),)
        clock.at(start + 35, ev.CaseFinished(case, "FAILURE", words, rows))
        return start + 36
    took = dice.uniform(60, 90)
    for name, rank in ranks:
        clock.at(start + took, ev.RankExited(case, "main", name, rank, 0, "exited", took))
    metric, value = next((model[1], model[2]) for model in MODELS if model[0] == case)
    rows = (
        row(
            case,
            f"{value}",
            metric,
            nnodes=str(len(names)),
            gpus_per_node=str(per_node),
            n_gpus=str(len(ranks)),
            gpu_architecture="gfx942",
            launcher=next(model[3] for model in MODELS if model[0] == case),
            test_duration=f"{took:.2f}",
            args="--seq-length 4096 --global-batch-size 256",
            docker_image="rocm/megatron-lm:v25.9",
        ),
    )
    clock.at(start + took + 3, ev.CaseFinished(case, "SUCCESS", f"{value} {metric}", rows))
    return start + took + 4


_OOM = "dmesg: Out of memory: Killed process 81244 (python) total-vm:214748364kB"
OOM_LOG = "\n".join(
    [
        *(
            f"[rank35]: step {step:3d} loss {8.2 - step / 40:.4f} 182.{step % 10} tok/s/GPU"
            for step in range(1, 90)
        ),
        "[rank35]: Traceback (most recent call last):",
        '[rank35]:   File "/workspace/torchtitan/train.py", line 431, in <module>',
        "[rank35]:     main(config)",
        '[rank35]:   File "/workspace/torchtitan/train.py", line 377, in main',
        "[rank35]:     loss.backward()",
        "[rank35]: \x1b[31mtorch.OutOfMemoryError\x1b[0m: HIP out of memory. Tried to allocate 2.00 GiB. "
        "GPU 3 has a total capacity of 191.98 GiB of which 1.21 GiB is free.",
        "",
    ]
)


def with_logs(run: RunDirectory) -> RunDirectory:
    """The logs of ``cluster_run``."""
    case = "pyt_torchtitan_llama3_405b"
    log(run, f"gpu005/{case}/rank35.err", OOM_LOG)
    log(run, f"gpu005/{case}/rank36.err", "RuntimeError: NCCL communicator was aborted on rank 36\n")
    log(run, f"gpu001/{case}/rank0.err", "W1122 02:04:11 agent.py] received SIGTERM, closing\n" * 3)
    return run


def with_table(path: Path, rows: list[dict[str, str]]) -> Path:
    """A table as phalanx writes it."""
    append_rows(path, rows)
    return path
