"""GPUs read from what the vendors' tools print and from the kernel's trees."""

from __future__ import annotations

import json
from pathlib import Path

from phalanx.agent.facts import amd, nvidia
from phalanx.agent.facts.gpus import AMD, NVIDIA, Seen, Told, bus_address, complaint_of, merge
from phalanx.agent.facts.sysfs import gfx_target, seen_in_sysfs

NVIDIA_SMI = """\
0, NVIDIA H200, 00000000:19:00.0, 143771
1, NVIDIA H200, 00000000:3B:00.0, 143771
"""

AMD_SMI = [
    {
        "gpu": 0,
        "asic": {
            "market_name": "AMD Instinct MI300X",
            "vendor_id": "0x1002",
            "device_id": "0x74a1",
            "num_compute_units": 304,
            "target_graphics_version": "gfx942",
        },
        "bus": {"bdf": "0000:05:00.0", "max_pcie_width": 16, "slot_type": "OAM"},
        "board": {"model_number": "102-G30211-0C", "product_name": "AMD Instinct MI300X OAM"},
        "vram": {"type": "HBM3", "size": {"value": 196592, "unit": "MB"}, "bit_width": 8192},
    },
    {
        "gpu": 1,
        "asic": {"market_name": "AMD Radeon Graphics", "target_graphics_version": "gfx950"},
        "bus": {"bdf": "0000:15:00.0"},
        "board": {"product_name": "AMD Instinct MI355X"},
        "vram": {"size": "294896 MB"},
    },
]

ROCM_SMI = """\
WARNING: AMD GPU device(s) is/are in a low-power state. Check power control/runtime_status

{"card0": {"VRAM Total Memory (B)": "68702699520", "VRAM Total Used Memory (B)": "10960896",
 "Card series": "AMD INSTINCT MI250 (MCM) OAM AC MBA", "Card model": "0x0b0c", "Card vendor": "AMD",
 "Card SKU": "D65209", "PCI Bus": "0000:31:00.0"},
 "card1": {"VRAM Total Memory (B)": "206141652992", "Card Series": "AMD Instinct MI300X",
 "Card Model": "0x74a1", "PCI Bus": "0000:C4:00.0", "GFX Version": "gfx942"},
 "system": {"Driver version": "6.8.5"}}
"""


def test_nvidia_smi_gives_name_bus_and_memory() -> None:
    assert nvidia.parse(NVIDIA_SMI) == [
        Seen(NVIDIA, "NVIDIA H200", "0000:19:00.0", 143771 * 2**20, "nvidia-smi", 0),
        Seen(NVIDIA, "NVIDIA H200", "0000:3b:00.0", 143771 * 2**20, "nvidia-smi", 1),
    ]


def test_a_gpu_that_knows_no_memory_of_its_own_has_none() -> None:
    found = nvidia.parse("0, NVIDIA GB10, 0000000F:01:00.0, [N/A]\n")
    assert found == [Seen(NVIDIA, "NVIDIA GB10", "000f:01:00.0", 0, "nvidia-smi", 0)]


def test_complaints_of_nvidia_smi_are_no_gpus() -> None:
    assert nvidia.parse("No devices were found\n") == []
    failure = (
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the "
        "latest NVIDIA driver is installed and running.\n\n"
    )
    assert nvidia.parse(failure) == []
    lost = "Unable to determine the device handle for GPU1: 0000:3B:00.0: Unknown Error\n"
    assert [gpu.index for gpu in nvidia.parse(NVIDIA_SMI + lost)] == [0, 1]
    assert nvidia.parse("٣, NVIDIA H200, 00000000:19:00.0, 143771") == []


def test_amd_smi_is_read_in_both_of_its_forms() -> None:
    expected = [
        Seen(AMD, "AMD Instinct MI300X", "0000:05:00.0", 196592 * 2**20, "amd-smi", 0, "gfx942"),
        Seen(AMD, "AMD Instinct MI355X", "0000:15:00.0", 294896 * 2**20, "amd-smi", 1, "gfx950"),
    ]
    assert amd.parse_amd_smi(json.dumps(AMD_SMI, indent=4)) == expected
    assert amd.parse_amd_smi("some warning\n" + json.dumps({"gpu_data": AMD_SMI})) == expected


def test_rocm_smi_is_read_in_both_spellings_after_its_warnings() -> None:
    assert amd.parse_rocm_smi(ROCM_SMI) == [
        Seen(AMD, "AMD INSTINCT MI250 (MCM) OAM AC MBA", "0000:31:00.0", 68702699520, "rocm-smi", 0),
        Seen(AMD, "AMD Instinct MI300X", "0000:c4:00.0", 206141652992, "rocm-smi", 1),
    ]


def test_anything_else_of_amd_tools_is_no_gpu() -> None:
    strange = [
        "", "ERROR:root:Driver not initialized", "{", "[" * 100_000, "[1, null, {}]", '[{"gpu": "0"}]', "{}",
        '{"gpu_data": 5}', '{"card0": 1}',
    ]  # fmt: skip
    for text in strange:
        assert amd.parse_amd_smi(text) == []
        assert amd.parse_rocm_smi(text) == []
    unknown = [{"gpu": 0, "asic": "N/A", "bus": {"bdf": 7}, "vram": {"size": {"value": "N/A", "unit": "MB"}}}]
    assert amd.parse_amd_smi(json.dumps(unknown)) == [Seen(AMD, "", "", 0, "amd-smi", 0)]


def test_bus_addresses_of_all_tools_become_one() -> None:
    assert bus_address("00000000:19:00.0") == bus_address("0000:19:00.0") == bus_address("19:00.0")
    assert bus_address("0000:C4:00.0") == "0000:c4:00.0"
    assert bus_address("10000:C4:00.0") == "10000:c4:00.0"
    assert bus_address("19:00") == bus_address("N/A") == ""


def device(root: Path, bus: str, **files: str) -> None:
    """A device of the PCI bus with the files given."""
    directory = root / "sys/bus/pci/devices" / bus
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).write_text(text + "\n")


def amd_node(root: Path) -> None:
    """Two Instincts, of which KFD counts the one at the higher address first, beside what is no GPU."""
    device(root, "0000:05:00.0", vendor="0x1002", device="0x74a1", mem_info_vram_total="206141652992",
           **{"class": "0x120000", "product_name": "AMD Instinct MI300X"})  # fmt: skip
    device(root, "0000:c4:00.0", vendor="0x1002", device="0x740c", **{"class": "0x038000"})
    device(root, "0000:c5:00.0", vendor="0x1022", device="0x14a4", **{"class": "0x060400"})
    device(root, "0000:c6:00.0", vendor="0x1002", device="0xab28", **{"class": "0x040300"})
    device(root, "0000:c7:00.0", vendor="0x1a03", device="0x2000", **{"class": "0x030000"})
    nodes = root / "sys/class/kfd/kfd/topology/nodes"
    for number, properties in {
        0: "cpu_cores_count 96\nsimd_count 0\n",
        2: "simd_count 440\nlocation_id 50176\ndomain 0\ngfx_target_version 90010\n",
        10: "simd_count 1216\nlocation_id 1280\ndomain 0\ngfx_target_version 90402\n",
    }.items():
        (nodes / str(number)).mkdir(parents=True)
        (nodes / str(number) / "properties").write_text(properties)


def test_sysfs_shows_amd_gpus_in_the_order_of_kfd(tmp_path: Path) -> None:
    amd_node(tmp_path)
    assert seen_in_sysfs(tmp_path) == [
        Seen(AMD, "gfx90a", "0000:c4:00.0", 0, "pci", architecture="gfx90a"),
        Seen(AMD, "AMD Instinct MI300X", "0000:05:00.0", 206141652992, "pci", architecture="gfx942"),
    ]


def test_sysfs_names_the_render_node_of_a_gpu_where_there_is_one(tmp_path: Path) -> None:
    amd_node(tmp_path)
    for name in ("card1", "renderD129"):
        (tmp_path / "sys/bus/pci/devices/0000:c4:00.0/drm" / name).mkdir(parents=True)
    seen = seen_in_sysfs(tmp_path)
    assert [gpu.render_number for gpu in seen] == [129, 0]
    of_tool = [Seen(AMD, "", "0000:c4:00.0", 0, "amd-smi", 0), Seen(AMD, "", "0000:05:00.0", 0, "amd-smi", 1)]
    assert [gpu.render_number for gpu in merge([of_tool], seen)] == [129, 0]


def test_sysfs_shows_nvidia_gpus_with_the_drivers_name_for_them(tmp_path: Path) -> None:
    device(tmp_path, "0000:19:00.0", vendor="0x10de", device="0x2335", **{"class": "0x030200"})
    device(tmp_path, "0000:3b:00.0", vendor="0x10de", device="0x2335", **{"class": "0x030200"})
    device(tmp_path, "0000:07:00.0", vendor="0x10de", device="0x22a3", **{"class": "0x068000"})
    information = tmp_path / "proc/driver/nvidia/gpus/0000:19:00.0/information"
    information.parent.mkdir(parents=True)
    information.write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 18\n")
    assert [(gpu.bus, gpu.model) for gpu in seen_in_sysfs(tmp_path)] == [
        ("0000:19:00.0", "NVIDIA H200"),
        ("0000:3b:00.0", "PCI device 0x2335"),
    ]


def test_a_machine_without_these_trees_has_no_gpus(tmp_path: Path) -> None:
    assert seen_in_sysfs(tmp_path) == []


def test_kfds_numbers_are_llvms_names() -> None:
    assert [gfx_target(number) for number in (90402, 90010, 110000, 120001, 0)] == [
        "gfx942", "gfx90a", "gfx1100", "gfx1201", "",
    ]  # fmt: skip


def test_a_gpu_that_the_driver_lost_is_still_listed() -> None:
    bus = [Seen(NVIDIA, "PCI device 0x2335", f"0000:{at}:00.0", 0, "pci") for at in ("19", "3b", "4c")]
    gpus = merge([nvidia.parse(NVIDIA_SMI), []], bus)
    assert [(gpu.index, gpu.bus, gpu.source) for gpu in gpus] == [
        (0, "0000:19:00.0", "nvidia-smi"),
        (1, "0000:3b:00.0", "nvidia-smi"),
        (2, "0000:4c:00.0", "pci"),
    ]


def test_what_a_tool_does_not_know_comes_from_sysfs() -> None:
    gpus = merge(
        [[Seen(AMD, "", "0000:05:00.0", 0, "amd-smi", 0)]],
        [Seen(AMD, "gfx942", "0000:05:00.0", 7, "pci")],
    )
    assert [(gpu.model, gpu.memory_bytes, gpu.source) for gpu in gpus] == [("gfx942", 7, "amd-smi")]


def test_no_more_gpus_than_a_message_holds_and_no_control_characters() -> None:
    many = [Seen(AMD, "bad\x1b[31mname", f"{at:04x}:05:00.0", 2**70, "pci") for at in range(80)]
    gpus = merge([], many)
    assert len(gpus) == 64
    assert gpus[0].model == "bad [31mname"
    assert gpus[0].memory_bytes == 2**63 - 1


def test_a_tool_is_complained_of_only_where_the_bus_shows_what_it_does_not_list() -> None:
    here = Seen(NVIDIA, "PCI device 0x2335", "0000:19:00.0", 0, "pci")
    display = Seen(AMD, "PCI device 0x164e", "0000:05:00.0", 0, "pci")
    listed = Seen(NVIDIA, "NVIDIA H200", "0000:19:00.0", 7, "nvidia-smi", 0)
    broken = Told(NVIDIA, (), "nvidia-smi: No devices were found")
    absent = Told(AMD, (), "there is no amd-smi")
    assert complaint_of([broken, absent], [here]) == broken.complaint
    assert complaint_of([broken, absent], [display]) == absent.complaint
    assert complaint_of([broken, absent], []) == ""
    assert complaint_of([Told(NVIDIA, (listed,), "nvidia-smi: exit status 14")], [here]) == ""
    assert complaint_of([Told(NVIDIA, (), "")], [here]) == ""
