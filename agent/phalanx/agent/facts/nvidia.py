"""GPUs as nvidia-smi lists them.

``nvidia-smi --query-gpu=... --format=csv,noheader,nounits``: one line per GPU, fields by ", ", memory in MiB.
What a GPU does not have is "[N/A]" (a GB10 shares the memory of the CPU), a lost one "[GPU is lost]".
"""

from __future__ import annotations

from .bounded import ask_tool
from .gpus import NVIDIA, Seen, Told, bus_address

ARGV = (
    "nvidia-smi",
    "--query-gpu=index,name,pci.bus_id,memory.total",
    "--format=csv,noheader,nounits",
)


def told_by_nvidia_smi() -> Told:
    """What nvidia-smi says now."""
    answer = ask_tool(ARGV, is_data=lambda line: bool(parse(line)))
    return Told(NVIDIA, tuple(parse(answer.text)), answer.complaint)


def parse(text: str) -> list[Seen]:
    """The GPUs in the tool's answer. Lines of another form, its complaints, are passed over."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 4 or not (fields[0].isascii() and fields[0].isdecimal()):
            continue
        index, name, bus, memory = fields
        mebibytes = int(memory) if memory.isascii() and memory.isdecimal() else 0
        model = "" if name.startswith("[") else name
        found.append(Seen(NVIDIA, model, bus_address(bus), mebibytes * 2**20, "nvidia-smi", int(index)))
    return found
