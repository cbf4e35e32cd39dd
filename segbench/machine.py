"""The machine: what results are kept apart by, and what a reader needs to know of it. Nothing here imports torch."""

import contextlib
import functools
import hashlib
import math
import os
import platform
import re
import subprocess
import tempfile
import uuid
import zlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import psutil

# x86-64 microarchitectures by vendor, family and models, from the Linux kernel's and GCC's CPU tables. archspec goes by
# flags, of which a hypervisor hides some (it calls a virtual Zen 5 x86_64_v4), and has no Alder Lake or Emerald Rapids.
MICROARCHITECTURES = {
    ("amd", 0x17): ((0x01, 0x2F, "Zen/Zen+"), (0x30, 0xFF, "Zen 2")),
    ("amd", 0x19): (
        (0x00, 0x0F, "Zen 3"),
        (0x10, 0x1F, "Zen 4"),
        (0x20, 0x5F, "Zen 3"),
        (0x60, 0x7F, "Zen 4"),
        (0xA0, 0xAF, "Zen 4c"),
    ),
    ("amd", 0x1A): ((0x00, 0xFF, "Zen 5"),),
    ("intel", 6): (
        (0x3F, 0x3F, "Haswell"),
        (0x4F, 0x4F, "Broadwell"),
        (0x55, 0x55, "Skylake-SP/Cascade Lake"),
        (0x6A, 0x6C, "Ice Lake"),
        (0x8C, 0x8D, "Tiger Lake"),
        (0x8F, 0x8F, "Sapphire Rapids"),
        (0x97, 0x9A, "Alder Lake"),
        (0xAA, 0xAC, "Meteor Lake"),
        (0xAD, 0xAE, "Granite Rapids"),
        (0xB7, 0xBF, "Raptor Lake"),
        (0xCF, 0xCF, "Emerald Rapids"),
    ),
}
VENDORS = {"AuthenticAMD": "amd", "GenuineIntel": "intel", "0x41": "arm", "0x61": "apple"}
# What to call an instruction set -> the flags of /proc/cpuinfo (x86-64, aarch64) that show it.
ISA = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "BF16": ("avx512_bf16", "bf16"),
    "AMX": ("amx_bf16",),
    "SVE": ("sve",),
}


class Machine(msgspec.Struct, kw_only=True, omit_defaults=True):
    name: str  # amd-25.17-2c: vendor, family.model, usable cores
    label: str  # AMD EPYC (Zen 4, AVX-512, BF16), 2 cores
    brand: str
    isa: list[str]
    native_bf16: bool
    cores: int  # physical ones that this process may really use
    logical_cpus: int  # in its affinity mask
    quota_cpus: float | None = None  # the control group's limit
    governor: str | None = None
    mhz: float | None = None
    huge_pages: str | None = None
    ram_gb: float = 0
    virtual: bool = False
    system: str = ""
    kernel: str = ""
    libc: str = ""
    python: str = ""


@functools.cache
def cache_folder() -> Path:
    """Where compiled graphs and converted models are kept between runs: a folder per kind of machine, for compiled code
    is for the instructions that it found. In the temporary folder where there is no better one that can be written to,
    or where it has a space in its path, which g++ is given in two halves."""
    here = describe()
    kind = f"{here.name.rsplit('-', 1)[0]}-{zlib.crc32(' '.join(here.isa).encode()):08x}"
    fallback = Path(tempfile.gettempdir()) / f"benchmark_cnn-{os.getuid()}"
    for folder in (wanted_cache() / kind, fallback / kind):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK) and " " not in str(folder) and folder.is_absolute():
                return folder
    return folder  # whoever needs it will say why it cannot be used


def wanted_cache() -> Path:
    """Where users look for caches; no home is none."""
    home = Path(os.environ.get("HOME") or "/")
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "benchmark_cnn"


def free_gb(root: Path = Path("/")) -> float:
    """Memory that a new process can have: of the machine, and within the limits of its control groups."""
    left = [psutil.virtual_memory().available]
    for folder in control_groups("memory", root):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most, now = read(folder / limit), read(folder / used)
            if most and now and most != "max":
                left.append(max(0, int(most) - int(now)))
    return min(left) / 1e9


def describe(processors: Path = Path("/proc/cpuinfo")) -> Machine:
    """This machine. Raises SystemExit with one line where it is not Linux: there is no /proc to read it from."""
    if platform.system() != "Linux":
        raise SystemExit(
            f"{platform.system()} is not supported: page faults, memory and cores are read from Linux's /proc"
        )
    info = first_processor(processors.read_text())
    vendor = VENDORS.get(info.get("vendor_id") or info.get("CPU implementer", ""), "unknown")
    family = int(info.get("cpu family") or info.get("CPU architecture") or 0)
    model = int(info.get("model") or info.get("CPU part") or "0", 0)
    flags = set((info.get("flags") or info.get("Features") or "").split())
    isa = [name for name, any_of in ISA.items() if flags & set(any_of)]
    brand = re.sub(r"\((R|TM)\)|\d+-Core|Processor|CPU|@.*", "", info.get("model name") or vendor).strip()
    cores = usable_cores()
    shown = [name for name in isa if name not in ("AVX2", "VNNI") or "AVX-512" not in isa]
    kind = ", ".join([microarchitecture(vendor, family, model), *shown])
    return Machine(
        name=f"{vendor}-{family}.{model}-{cores}c",
        label=f"{' '.join(brand.split())} ({kind}), {cores} core{'s' * (cores > 1)}",
        brand=brand,
        isa=isa,
        native_bf16="BF16" in isa or "AMX" in isa,
        cores=cores,
        logical_cpus=len(os.sched_getaffinity(0)),
        quota_cpus=cgroup_quota(),
        governor=read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        mhz=float(info["cpu MHz"]) if "cpu MHz" in info else None,
        huge_pages=read("/sys/kernel/mm/transparent_hugepage/enabled"),
        ram_gb=round(psutil.virtual_memory().total / 1e9, 1),
        virtual="hypervisor" in flags,
        system=operating_system(),
        kernel=platform.release(),
        libc=" ".join(platform.libc_ver()),
        python=platform.python_version(),
    )


def first_processor(text: str) -> dict[str, str]:
    """The first block of the text of /proc/cpuinfo."""
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def microarchitecture(vendor: str, family: int, model: int) -> str:
    """`Zen 4`; on Arm by archspec's part numbers; `family 6 model 167` where neither table has it."""
    for first, last, name in MICROARCHITECTURES.get((vendor, family), ()):
        if first <= model <= last:
            return name
    if vendor in ("arm", "apple"):
        from archspec.cpu import TARGETS

        for name, target in TARGETS.items():
            if target.vendor.lower() == vendor and target.cpu_part == f"0x{model:03x}":
                kind, _, generation = name.partition("_")
                return f"{kind.title()} {generation.upper()}".strip()
    return f"family {family} model {model}"


def operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "Linux"


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Their versions, `missing` where there is none."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "missing"
    return versions


# loky's cpu_count does the same but for two things that change what is measured: it rounds a quota of 1.5 CPUs up, so
# that two threads would be throttled, and it reads the quota of the topmost control group alone.
def usable_cores(root: Path = Path("/")) -> int:
    """Physical cores in this process's affinity mask, at most the control group's quota, at least one. `root` is where
    /proc and /sys lie."""
    siblings = {
        read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)
        for cpu in os.sched_getaffinity(0)
    }
    quota = cgroup_quota(root)
    return max(1, min(len(siblings), math.floor(quota) if quota else len(siblings)))


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPUs that the control groups may use at a time, the least of all ancestors, or None where none sets a limit."""
    quotas = []
    for folder in control_groups("cpu", root):
        quota, _, period = (read(folder / "cpu.max") or "").partition(" ")
        if not quota:
            quota, period = read(folder / "cpu.cfs_quota_us") or "-1", read(folder / "cpu.cfs_period_us")
        if quota not in ("max", "-1"):
            quotas.append(int(quota) / int(period or 100000))
    return min(quotas, default=None)


def control_groups(controller: str, root: Path = Path("/")) -> list[Path]:
    """The folders of this process's control group and of all its ancestors (cgroup v2, then v1). In a container the
    topmost may be what the outside calls by another path."""
    folders = []
    for line in (read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / (controller if controllers else "")
            group = top / path.lstrip("/")
            folders += [group, *(parent for parent in group.parents if parent.is_relative_to(top))]
    return list(dict.fromkeys(folders))


def commit() -> str:
    """Commit of the code that measures, with a + where any of it was changed since; "" outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ":/*.py"], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return head.stdout.strip() + "+" * (changed.returncode == 1)


def boot_id() -> str:
    return read("/proc/sys/kernel/random/boot_id") or ""


def host_id() -> str:
    """What a host is known by after a reboot: 12 hex digits, a hash of the machine id and the network card's address
    like systemd's app-specific ids. "" where either is missing, or where no maker assigned the address."""
    machine_id, address = read("/etc/machine-id") or "", uuid.getnode()
    # Virtual machines of one image share its machine id, and often a local address such as 02:fc:00:00:00:01.
    local_or_random = address >> 40 & 0b11
    if local_or_random or not re.fullmatch("[0-9a-f]{32}", machine_id):
        return ""
    return hashlib.blake2b(b"benchmark_cnn %012x" % address, key=machine_id.encode(), digest_size=6).hexdigest()


def read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
