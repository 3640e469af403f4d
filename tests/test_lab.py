"""The lab itself: what it decides without a machine, and the real thing with two nodes, each fault once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab, LabError, cgroup, missing_parts, topology
from tests.lab.archive import random_layer, tiny_image
from tests.lab.image import NAME, base_image
from tests.lab.process import Process, wait_until

DISK = "600M"


def made(nodes: int = 4, index: int = 7, name: str = "t1", **fields: object) -> topology.Topology:
    request = topology.Request.from_json({"nodes": nodes, **fields})
    return topology.Topology(name, index, Path("/tmp") / f"phalanx-lab-{name}", request)


# What is decided without a machine.


def test_two_labs_share_no_address_no_interface_and_no_port() -> None:
    one, other = made(index=1, name="one"), made(index=2, name="other")
    for lab in (one, other):
        assert lab.address("login") == lab.login_address
    assert not {one.address(n) for n in [*one.nodes, "login"]} & {
        other.address(n) for n in [*other.nodes, "login"]
    }
    assert one.login_interface != other.login_interface
    assert one.slurmctld_port != other.slurmctld_port
    assert one.cgroup != other.cgroup


def test_every_node_of_the_largest_lab_has_its_own_address_in_the_subnet() -> None:
    lab = made(nodes=topology.MAX_NODES)
    addresses = [lab.address(node) for node in lab.nodes]
    assert len(set(addresses)) == topology.MAX_NODES
    assert addresses[-1] == "10.77.7.250"


def test_slurm_conf_names_each_node_by_its_hostname_and_address() -> None:
    text = topology.slurm_conf(made(nodes=2), "head")
    lines = text.splitlines()
    assert "SlurmctldHost=head(10.77.7.1)" in lines
    assert "SlurmctldPort=17007" in lines
    assert [line.split()[:2] for line in lines if line.startswith("NodeName")] == [
        ["NodeName=n1", "NodeAddr=10.77.7.11"],
        ["NodeName=n2", "NodeAddr=10.77.7.12"],
    ]
    assert [line.split()[0] for line in lines if line.startswith("Partition")] == [
        "PartitionName=lab",
        "PartitionName=short",
    ]
    assert "Gres" not in text


def test_gpus_are_devices_in_gres_conf_and_a_count_in_slurm_conf() -> None:
    lab = made(nodes=2, gpus=8)
    assert "Gres=gpu:8" in topology.slurm_conf(lab, "head")
    assert topology.gres_conf(lab).splitlines()[1] == "NodeName=n[1-2] Name=gpu File=/run/gpu/gpu[0-7]"
    assert topology.gres_conf(made()) == ""


def test_a_bucket_holds_a_whole_frame_however_slow_the_link() -> None:
    assert topology.shaping_line("p1", topology.parse_rate("20mbit")) == (
        "qdisc replace dev p1 root tbf rate 20000000bit burst 131072 latency 20ms"
    )
    assert "burst 2500000 " in topology.shaping_line("p1", topology.parse_rate("10gbit"))
    assert topology.shaping_line("p1", topology.parse_rate("max")) == "qdisc del dev p1 root"


def test_the_block_in_the_hosts_file_goes_without_a_trace() -> None:
    before = "127.0.0.1 localhost\n# not ours\n10.0.0.1 n1"
    with_both = topology.hosts_block(made(name="one")) + topology.hosts_block(made(name="other")) + before
    without_one = topology.without_block(with_both, "one")
    assert "n1.other" in without_one and "n1.one" not in without_one
    assert topology.without_block(without_one, "other") == before


@pytest.mark.parametrize(
    "fields", [{"nodes": 0}, {"nodes": 241}, {"cpus": 0}, {"rate": "fast"}, {"rate": "0mbit"}, {"disk": "1M"}]
)
def test_a_request_that_cannot_come_up_is_refused_before_anything_is_touched(
    fields: dict[str, object],
) -> None:
    with pytest.raises(LabError, match=r"^cannot "):
        topology.Request.from_json(fields).check()


@pytest.mark.parametrize("name", ["", "A", "a/b", "-a", "a" * 21])
def test_a_name_that_could_not_be_a_folder_or_a_cgroup_is_refused(name: str) -> None:
    with pytest.raises(LabError, match=r"^cannot name a lab"):
        topology.check_name(name)


def test_differences_of_requests_are_said_in_words() -> None:
    assert made(nodes=4).request.differences(made(nodes=2).request) == ["nodes 4, not 2"]


def test_a_recycled_pid_is_not_the_process_that_was_recorded() -> None:
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert Process(os.getpid(), start).alive()
    assert not Process(os.getpid(), start + 1).alive()


def test_a_tiny_image_is_the_same_wherever_it_is_made(tmp_path: Path) -> None:
    layers = [{"a": b"1"}, random_layer(1000, seed=5)]
    first = tiny_image(tmp_path / "1.tar", name="tiny:1", layers=layers)
    again = tiny_image(tmp_path / "2.tar", name="tiny:1", layers=layers)
    assert first == again
    with tarfile.open(tmp_path / "1.tar") as archive:

        def read(member: str) -> bytes:
            handle = archive.extractfile(member)
            assert handle is not None
            return handle.read()

        manifest = json.loads(read("manifest.json"))[0]
        config = read(manifest["Config"])
        digests = [f"sha256:{hashlib.sha256(read(member)).hexdigest()}" for member in manifest["Layers"]]
    assert first == f"sha256:{hashlib.sha256(config).hexdigest()}"
    assert json.loads(config)["rootfs"]["diff_ids"] == digests


# The real thing. The tests share one lab, and each puts back what it changed.


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    missing = missing_parts(docker=True)
    if missing:
        pytest.skip(f"no lab on this machine: {', '.join(missing)}")
    found = Lab.up(name="labtest", nodes=2, docker=True, disk=DISK, gpus=2, fresh=True)
    yield found
    groups = cgroup.root()
    found.down()
    assert not found.topology.state.exists()
    assert not Path("/sys/class/net", found.topology.login_interface).exists()
    assert not list(groups.glob(f"*/{found.topology.cgroup}"))
    assert "labtest" not in Path("/etc/hosts").read_text()
    assert (
        "phalanx-lab-labtest" not in subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout
    )


def reaches(lab: Lab, one: str, other: str) -> bool:
    probe = f"</dev/tcp/{other}/{topology.SLURMD_PORT}"
    return lab.exec(one, ["timeout", "1", "bash", "-c", probe]).returncode == 0


def power(lab: Lab) -> dict[str, str]:
    return {each.node: each.power for each in lab.status()}


@pytest.mark.lab
def test_srun_reaches_every_node_under_its_own_name(lab: Lab) -> None:
    assert sorted(lab.ask_slurm(["srun", "-N2", "--chdir=/", "hostname"]).split()) == ["n1", "n2"]


@pytest.mark.lab
def test_two_steps_overlap_in_one_allocation_and_two_jobs_on_one_node(lab: Lab) -> None:
    for _ in range(2):
        lab.ask_slurm(["sbatch", "-w", "n1", "--chdir=/", "--output=/dev/null", "--wrap", "sleep 30"])
    assert wait_until(lambda: lab.ask_slurm(["squeue", "-h", "-o", "%T"]).split() == ["RUNNING"] * 2, 10.0)
    first = lab.job_ids()[0]
    step = ["srun", f"--jobid={first}", "--overlap", "--chdir=/", "hostname"]
    assert lab.ask_slurm(step).strip() == "n1"
    lab.cancel_jobs()
    assert lab.job_ids() == []


@pytest.mark.lab
def test_a_step_sees_the_gpus_it_asked_for(lab: Lab) -> None:
    argv = ["srun", "-N1", "--gres=gpu:2", "--chdir=/", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]
    assert lab.ask_slurm(argv).strip() == "0,1"


@pytest.mark.lab
def test_up_again_does_nothing_and_other_arguments_are_refused(lab: Lab) -> None:
    before = {each.node: each.init for each in lab.status()}
    Lab.up(name="labtest", nodes=2, docker=True, disk=DISK, gpus=2)
    assert {each.node: each.init for each in lab.status()} == before
    with pytest.raises(LabError, match="nodes 3, not 2"):
        Lab.up(name="labtest", nodes=3, docker=True, disk=DISK, gpus=2)


@pytest.mark.lab
def test_each_node_has_a_tmp_a_var_and_a_run_of_its_own_and_one_folder_is_shared(lab: Lab) -> None:
    for folder in ("/tmp", "/var/lib", "/run", "/dev/shm"):
        lab.exec("n1", ["touch", f"{folder}/only-here"], check=True)
        assert lab.exec("n2", ["test", "-e", f"{folder}/only-here"]).returncode == 1
        assert not Path(folder, "only-here").exists()
    (lab.shared / "note").write_text("for all")
    assert lab.exec("n2", ["cat", str(lab.shared / "note")]).stdout == "for all"


@pytest.mark.lab
def test_an_orphan_of_a_node_is_reaped(lab: Lab) -> None:
    lab.exec("n1", ["sh", "-c", "sleep 0.1 & sleep 0.1 &"], check=True)
    defunct = ["sh", "-c", "ps -eo stat | grep -c ^Z"]
    assert wait_until(lambda: lab.exec("n1", defunct).stdout.strip() == "0", 5.0)


@pytest.mark.lab
def test_bytes_are_counted_where_they_went_and_shaped_as_told(lab: Lab) -> None:
    listen = "import socket; s=socket.create_server(('',9000)); print(flush=True); c,_=s.accept()"
    receive = f"{listen}\nwhile c.recv(65536): pass"
    send = f"import socket; socket.create_connection(('{lab.address('n2')}',9000)).sendall(bytes(8_000_000))"
    lab.rate("n2", "100mbit")
    server = subprocess.Popen(lab.enter("n2", ["python3", "-c", receive]), stdout=subprocess.PIPE)
    assert server.stdout is not None and server.stdout.readline()
    before, begun = lab.stats(), time.monotonic()
    lab.exec("n1", ["python3", "-c", send], check=True)
    assert server.wait(timeout=20) == 0
    took, after = time.monotonic() - begun, lab.stats()
    server.stdout.close()
    lab.rate("n2", "max")
    for now, then in ((after["n1"].sent, before["n1"].sent), (after["n2"].received, before["n2"].received)):
        assert now is not None and then is not None
        assert 8_000_000 < now - then < 8_400_000
    sent, received = lab.traffic()["n1"]
    later = lab.stats()["n1"]
    assert after["n1"].sent <= sent <= later.sent and after["n1"].received <= received <= later.received
    # 8 MB at 100 Mbit/s are 0.64 s, less what the bucket holds; a link left unshaped takes a tenth of that.
    assert took > 0.55


@pytest.mark.lab
def test_a_cut_node_is_silent_until_it_is_joined(lab: Lab) -> None:
    assert reaches(lab, "n1", "n2")
    for way, word in (("both", "cut"), ("out", "mute"), ("in", "deaf")):
        lab.cut("n2", way)
        assert [each.cable for each in lab.status()] == ["joined", word]
        assert not reaches(lab, "n1", "n2")
        lab.join("n2")
        # A neighbour that did not answer is asked for again only after a moment; a try takes a second.
        assert any(reaches(lab, "n1", "n2") for _ in range(10))


@pytest.mark.lab
def test_a_frozen_node_accepts_connections_and_does_nothing(lab: Lab) -> None:
    lab.freeze("n2")
    try:
        assert power(lab) == {"n1": "on", "n2": "frozen"}
        assert reaches(lab, "n1", "n2")
        with pytest.raises(LabError, match="frozen"):
            lab.exec("n2", ["true"])
    finally:
        lab.thaw("n2")
    assert lab.exec("n2", ["true"]).returncode == 0


@pytest.mark.lab
def test_a_killed_node_loses_its_processes_and_keeps_its_disk(lab: Lab) -> None:
    lab.exec("n2", ["sh", "-c", "echo kept > /var/tmp/kept; echo lost > /run/lost"], check=True)
    init = lab.init_pid("n2")
    lab.kill("n2")
    assert power(lab) == {"n1": "on", "n2": "off"}
    assert not Path(f"/proc/{init}/root/run").exists()
    with pytest.raises(LabError, match="boot it"):
        lab.exec("n2", ["true"])
    lab.boot("n2")
    assert lab.exec("n2", ["cat", "/var/tmp/kept"]).stdout == "kept\n"
    assert lab.exec("n2", ["test", "-e", "/run/lost"]).returncode == 1
    assert sorted(lab.ask_slurm(["srun", "-N2", "--chdir=/", "hostname"]).split()) == ["n1", "n2"]


@pytest.mark.lab
def test_a_hidden_program_is_not_there_on_one_node_only(lab: Lab) -> None:
    assert lab.hide("n1", "/usr/bin/py3versions /usr/bin/env")
    try:
        assert lab.exec("n1", ["/usr/bin/env"]).returncode == 126
        assert lab.exec("n2", ["/usr/bin/env"]).returncode == 0
    finally:
        assert "/usr/bin/env" in lab.unhide("n1")
    assert lab.exec("n1", ["/usr/bin/env"]).returncode == 0


@pytest.mark.lab
def test_a_full_disk_refuses_writes_until_it_is_given_space(lab: Lab) -> None:
    assert 0 < lab.fill("n1", "20M") <= 21 * 2**20
    write = ["dd", "if=/dev/zero", "of=/tmp/big", "bs=1M", "count=40"]
    assert "No space left" in lab.exec("n1", write).stderr
    lab.exec("n1", ["rm", "/tmp/big"], check=True)
    assert lab.unfill("n1") > 100 * 2**20
    assert lab.exec("n1", write).returncode == 0
    lab.exec("n1", ["rm", "/tmp/big"], check=True)


@pytest.mark.lab
def test_an_engine_loads_what_was_written_without_one(lab: Lab, tmp_path: Path) -> None:
    archive = tmp_path / "tiny.tar"
    image = tiny_image(archive, name="lab-tiny:1", layers=[{"etc/a": b"a"}, random_layer(2**20, seed=1)])
    assert lab.load_image("n1", archive) == "lab-tiny:1"
    assert lab.image_id("n1", "lab-tiny:1") == image
    assert lab.image_id("n2", "lab-tiny:1") is None


@pytest.mark.lab
@pytest.mark.timeout(900)
def test_a_container_of_the_base_image_runs_and_dies_with_its_node(lab: Lab) -> None:
    assert lab.load_image("n2", base_image()) == NAME
    run = ["docker", "run", "--network=host", "--label", "phalanx.run=x"]
    program = "import json, socket, sqlite3, ssl; print(socket.gethostname())"
    assert lab.exec("n2", [*run, "--rm", NAME, "python3", "-c", program]).stdout == "n2\n"
    assert lab.exec("n2", [*run, "--rm", NAME, "curl", "--version"]).stdout.startswith("curl ")
    lab.exec("n2", [*run, "--detach", NAME, "sleep", "600"], check=True)
    assert [each.state for each in lab.containers("n2", "phalanx.run=x")] == ["running"]
    assert lab.containers("n2", "phalanx.run=y") == []
    lab.kill("n2")
    lab.boot("n2")
    assert [each.state for each in lab.containers("n2", "phalanx.run=x")] == ["exited"]


@pytest.mark.lab
def test_a_daemon_that_died_can_be_started_again(lab: Lab) -> None:
    for service, record in (("docker", "/run/docker.pid"), ("slurmd", "/run/slurmd.pid")):
        lab.exec("n1", ["sh", "-c", f"kill -9 $(cat {record})"], check=True)
        lab.start_service("n1", service)
    assert lab.ask_slurm(["srun", "-w", "n1", "--chdir=/", "hostname"]).strip() == "n1"
    assert lab.containers("n1") == []


@pytest.mark.lab
def test_a_command_that_hangs_is_ended_on_the_node_too(lab: Lab) -> None:
    with pytest.raises(LabError, match="not done after 1 s"):
        lab.exec("n1", ["sleep", "987"], timeout=1.0)
    assert wait_until(lambda: lab.exec("n1", ["pgrep", "-fx", "sleep 987"]).returncode == 1, 5.0)


@pytest.mark.lab
def test_a_second_lab_comes_up_beside_and_recovers_when_all_of_it_was_killed(lab: Lab) -> None:
    other = Lab.up(name="labtest2", nodes=1, fresh=True)
    try:
        assert other.login_address != lab.login_address
        for pid in other.processes():
            Process.of(pid).kill()
        # SIGKILL returns before its target is gone.
        assert wait_until(lambda: not other.processes(), 5.0)
        again = Lab.up(name="labtest2", nodes=1)
        assert again.ask_slurm(["srun", "-N1", "--chdir=/", "hostname"]).strip() == "n1"
    finally:
        other.down()
    assert not other.topology.state.exists()
    assert lab.ask_slurm(["srun", "-N2", "--chdir=/", "true"]) == ""
