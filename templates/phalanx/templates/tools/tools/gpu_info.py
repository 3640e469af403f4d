"""Power or memory of the GPUs while a command runs: ``gpu_info.py POWER|VRAM COMMAND...``.

The word is the prefix of the variables that are read: _DEVICE (all, or numbers with commas), _SAMPLING_RATE
(seconds between samples), _MODE (power or vram), _DUAL_GCD (true: of two dies of a package only the first,
which has the power of both), _OUTPUT_FILE. One row for each sample, one column for each GPU: W, or MiB. The
command's end is ours; a tool that does not answer costs samples, never the command.

The answers that are read, as documented and as users of the tools posted them:
amd-smi metric --json (a list, from amd-smi 26 on in "gpu_data"), rocm-smi --json (keys changed between
releases), nvidia-smi --query-gpu (csv). None of it has been tried on a GPU yet.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from wrapped_command import WrappedCommand, end_as, replace_by, say

#: Seconds that a tool may take for one answer, and failures in a row after which that is said once.
ANSWER_S = 10.0
SAID_AFTER = 5
UNITS = {"power": "power_w", "vram": "vram_mib"}
ASKED = {
    ("amd-smi", "power"): ("metric", "--power", "--json"),
    ("amd-smi", "vram"): ("metric", "--mem-usage", "--json"),
    ("rocm-smi", "power"): ("--showpower", "--json"),
    ("rocm-smi", "vram"): ("--showmeminfo", "vram", "--json"),
    ("nvidia-smi", "power"): ("--query-gpu=index,power.draw", "--format=csv,noheader,nounits"),
    ("nvidia-smi", "vram"): ("--query-gpu=index,memory.used", "--format=csv,noheader,nounits"),
}
#: Instinct 300 and newer, older ones, and all of them, by release of amd-smi.
POWER_KEYS = ("socket_power", "current_socket_power", "average_socket_power")
TOOLS = ("amd-smi", "rocm-smi", "nvidia-smi")
_MIB = {"B": 2.0**-20, "KB": 2.0**-10, "MB": 1.0, "GB": 1024.0, "KIB": 2.0**-10, "MIB": 1.0, "GIB": 1024.0}


class Refused(Exception):
    """What was asked for makes no sense; the message is for the user."""


class Settings:
    """What the variables with a prefix say."""

    def __init__(self, prefix: str, environ: Any) -> None:
        def said(name: str, default: str) -> str:
            return str(environ.get(f"{prefix}_{name}", "")).strip() or default

        self.prefix = prefix
        self.mode = said("MODE", prefix.lower()).lower()
        self.output = said("OUTPUT_FILE", f"gpu_info_{self.mode}_profiler_output.csv")
        self.first_dies = said("DUAL_GCD", "false").lower() in ("1", "true", "yes", "on")
        if self.mode not in UNITS:
            raise Refused(f"{prefix}_MODE: expected power or vram, found {self.mode!r}")
        rate = said("SAMPLING_RATE", "0.1")
        try:
            self.interval_s = float(rate)
        except ValueError:
            self.interval_s = -1.0
        if not 0.0 < self.interval_s <= 3600.0:
            raise Refused(f"{prefix}_SAMPLING_RATE: expected seconds between two samples, found {rate!r}")
        devices = said("DEVICE", "all")
        if devices != "all" and not re.fullmatch(r"\d{1,5}(\s*,\s*\d{1,5})*", devices):
            raise Refused(f"{prefix}_DEVICE: expected all, or numbers such as 0,1, found {devices!r}")
        self.devices = None if devices == "all" else [int(word) for word in devices.split(",")]

    def wants(self, gpu: int) -> bool:
        if self.first_dies and gpu % 2:
            return False
        return self.devices is None or gpu in self.devices


def values_of(tool: str, mode: str, text: str) -> dict[int, float | None]:
    """By GPU the value in a tool's answer, None for one that it does not have; {} for anything else."""
    if tool == "nvidia-smi":
        return _of_nvidia(text)
    document = _json_in(text)
    return _of_amd(document, mode) if tool == "amd-smi" else _of_rocm(document, mode)


def _of_nvidia(text: str) -> dict[int, float | None]:
    found: dict[int, float | None] = {}
    for line in text.splitlines():
        index, comma, value = line.partition(",")
        if comma and index.strip().isdigit():
            found[int(index)] = _number(value)
    return found


def _of_amd(document: Any, mode: str) -> dict[int, float | None]:
    if isinstance(document, dict):
        document = document.get("gpu_data")
    found: dict[int, float | None] = {}
    for entry in document if isinstance(document, list) else ():
        if not isinstance(entry, dict) or type(entry.get("gpu")) is not int:
            continue
        part = entry.get("power" if mode == "power" else "mem_usage")
        names = POWER_KEYS if mode == "power" else ("used_vram",)
        values = [_quantity(part.get(name), mode) for name in names] if isinstance(part, dict) else []
        found[entry["gpu"]] = next((value for value in values if value is not None), None)
    return found


def _of_rocm(document: Any, mode: str) -> dict[int, float | None]:
    found: dict[int, float | None] = {}
    for card, entry in document.items() if isinstance(document, dict) else ():
        number = re.fullmatch(r"card(\d{1,5})", card)
        if number is None or not isinstance(entry, dict):
            continue
        value = None
        for key, said in entry.items():
            name = key.lower()
            if mode == "power" and "package power (w)" in name and not name.startswith("max"):
                value = _number(said)
            elif mode == "vram" and name == "vram total used memory (b)":
                in_bytes = _number(said)
                value = None if in_bytes is None else in_bytes / 2**20
        found[int(number.group(1))] = value
    return found


def _quantity(value: Any, mode: str) -> float | None:
    """{"value": 285, "unit": "MB"}, "20 W" or 20."""
    unit = ""
    if isinstance(value, dict):
        value, unit = value.get("value"), str(value.get("unit", ""))
    elif isinstance(value, str):
        value, _, unit = value.strip().partition(" ")
    number = _number(value)
    if number is None or mode == "power":
        return number
    return number * _MIB.get(unit.strip().upper() or "MB", 1.0)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < 1e15 else None  # nor nan


def _json_in(text: str) -> Any:
    """The JSON document after whatever warnings; None when there is none."""
    for match in re.finditer(r"^[\[{]", text, re.MULTILINE):
        try:
            return json.loads(text[match.start() :])
        except (ValueError, RecursionError):
            continue
    return None


class Sampler(threading.Thread):
    """Asks the first tool that answers, again and again, and writes a row for each answer."""

    def __init__(self, settings: Settings, file: Any) -> None:
        super().__init__(name="samples of the GPUs", daemon=True)
        self.settings = settings
        self.file = file
        self.tools = [tool for tool in TOOLS if shutil.which(tool)]
        self.over = threading.Event()
        self.asking: subprocess.Popen[bytes] | None = None
        self.gpus: list[int] = []
        self.samples = 0
        self.failures = 0
        self.last_words = ""

    def run(self) -> None:
        started = time.monotonic()
        while not self.over.is_set():
            asked = time.monotonic()
            values = self._ask()
            if values and not self.over.is_set():
                self._write(values, asked - started)
            elif not self.over.is_set():
                self._failed()
            self.over.wait(max(0.0, self.settings.interval_s - (time.monotonic() - asked)))

    def stop(self) -> None:
        """No more samples: what is being asked is not waited for."""
        self.over.set()
        if self.asking is not None:
            kill(self.asking)
        self.join(ANSWER_S)

    def _ask(self) -> dict[int, float | None]:
        for tool in list(self.tools):
            if self.over.is_set():
                break
            values = values_of(tool, self.settings.mode, self._answer(tool))
            if values:
                self.tools = [tool]
                wanted = {gpu: value for gpu, value in values.items() if self.settings.wants(gpu)}
                if not wanted:
                    self.last_words = f"{tool} has the GPUs {', '.join(map(str, sorted(values)))} only"
                return wanted
        return {}

    def _answer(self, tool: str) -> str:
        argv = [tool, *ASKED[tool, self.settings.mode]]
        try:
            self.asking = asking = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self.last_words = f"{tool}: {error.strerror}"
            return ""
        if self.over.is_set():
            kill(asking)  # it was started while stop() looked at the one before
        try:
            out, err = asking.communicate(timeout=ANSWER_S)
        except subprocess.TimeoutExpired:
            kill(asking)
            asking.communicate()
            self.last_words = f"{tool} did not answer within {ANSWER_S:.0f} s"
            return ""
        if self.over.is_set():
            return ""  # ended by stop(), which is no fault of the tool
        if not out.strip() or asking.returncode:
            words = (err or out).decode("utf-8", "replace").split("\n")[0][:200]
            self.last_words = f"{tool} ended with {asking.returncode}: {words}"
        return out.decode("utf-8", "replace")

    def _write(self, values: dict[int, float | None], elapsed_s: float) -> None:
        if not self.gpus:
            self.gpus = sorted(values)
            columns = [f"gpu{gpu}_{UNITS[self.settings.mode]}" for gpu in self.gpus]
            self.file.write(",".join(["time_s", "elapsed_s", *columns]) + "\n")
        cells = [values.get(gpu) for gpu in self.gpus]
        words = ["" if value is None else f"{value:.6g}" for value in cells]
        self.file.write(",".join([f"{time.time():.3f}", f"{elapsed_s:.3f}", *words]) + "\n")
        self.file.flush()  # what was sampled stays, whatever kills us
        self.samples += 1
        self.failures = 0

    def _failed(self) -> None:
        self.failures += 1
        if self.failures == SAID_AFTER:
            say(f"gpu_info: no values of the GPUs for now: {self.last_words or 'no tool has any'}")


def kill(asking: subprocess.Popen[bytes]) -> None:
    """End a tool and what it has started; they are in a session of their own."""
    if asking.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(asking.pid, signal.SIGKILL)


def settings_of(words: list[str]) -> tuple[Settings, Any]:
    """What to sample, and the file for it. Raises Refused."""
    settings = Settings(words[0], os.environ)
    if not any(shutil.which(tool) for tool in TOOLS):
        raise Refused(f"none of {', '.join(TOOLS)} is here")
    try:
        return settings, Path(settings.output).open("w", encoding="utf-8")
    except OSError as error:
        raise Refused(
            f"{settings.prefix}_OUTPUT_FILE: cannot write {settings.output}: {error.strerror}"
        ) from error


def main(words: list[str]) -> None:
    """Run the command and sample until it ends."""
    if len(words) < 2:
        say("cannot sample GPUs: expected gpu_info.py POWER|VRAM COMMAND...")
        sys.exit(2)
    if os.environ.get("LOCAL_RANK", "0") not in ("", "0"):
        replace_by(words[1:])  # the GPUs of a node are sampled once
    command = WrappedCommand(words[1:])
    try:
        settings, file = settings_of(words)
    except Refused as refusal:
        say(f"cannot sample GPUs: {refusal}")
        sys.exit(2)
    child = command.start()
    sampler = Sampler(settings, file)
    sampler.start()
    status = child.wait()
    sampler.stop()
    file.close()
    if sampler.samples:
        say(f"gpu_info: {sampler.samples} samples of {len(sampler.gpus)} GPUs in {settings.output}")
    else:
        say(f"gpu_info: no sample was taken: {sampler.last_words or 'the command was over before an answer'}")
    end_as(status)


if __name__ == "__main__":
    main(sys.argv[1:])
