"""The machine: what keeps results apart, and what a reader needs to know of it. Nothing here imports torch."""

import contextlib
import functools
import hashlib
import math
import os
import platform
import re
import stat
import subprocess
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import psutil

from .problem import Problem

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
    ("apple", 8): ((0x22, 0x29, "M1"), (0x32, 0x39, "M2")),
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
VENDORS = {"AuthenticAMD": "amd", "GenuineIntel": "intel", "HygonGenuine": "hygon", "IBM/S390": "ibm"}
VENDORS |= {"CentaurHauls": "zhaoxin", "Shanghai": "zhaoxin", "0x41": "arm", "0x43": "cavium", "0x46": "fujitsu"}
VENDORS |= {"0x48": "hisilicon", "0x4e": "nvidia", "0x51": "qualcomm", "0x61": "apple", "0xc0": "ampere"}
EFFICIENT = 0.75  # of the largest capacity: below are Apple's E-cores (0.47) and Arm's little ones (0.2 to 0.5)
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
    name: str  # amd-25.17-2c: vendor, family.model, usable cores; intel-6.151-8p8e: 8 P-cores, 8 E-cores
    label: str  # AMD EPYC (Zen 4, AVX-512, BF16), 2 cores
    isa: list[str]
    native_bf16: bool
    cores: int  # physical ones that this process may really use, of a hybrid CPU the P-cores
    governor: str | None = None
    huge_pages: str | None = None
    ram_gb: float = 0
    virtual: bool = False
    kernel: str = ""
    libc: str = ""
    python: str = ""

    @property
    def title(self) -> str:
        """Its label, in which a hypervisor's cores are called so."""
        return re.sub(r"(\d+) ([PE]-)?core", r"\1 virtual \2core", self.label) if self.virtual else self.label


@functools.cache
def cache_folder() -> Path:
    """Where compiled graphs and converted models lie: a folder per kind of machine, for compiled code depends on its
    instruction sets. It is in the temporary folder where the user's cache cannot be written to, or has a space in its
    path, which Inductor passes to g++ unquoted. Compiled code is loaded from it: raises Problem where the one in the
    temporary folder is another user's."""
    here = describe()
    kind = f"{here.name.rsplit('-', 1)[0]}-{zlib.crc32(' '.join(here.isa).encode()):08x}"
    fallback = Path(tempfile.gettempdir()) / f"benchmark_cnn-{os.getuid()}"
    for cache in (wanted_cache(), fallback):
        with contextlib.suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.mkdir(mode=0o700, exist_ok=True)
            folder, about = cache / kind, cache.lstat()
            is_own = about.st_uid == os.getuid() and stat.S_ISDIR(about.st_mode) and not about.st_mode & 0o022
            if cache == fallback and not is_own:
                raise Problem(
                    f"{cache} is another user's or open to others: set XDG_CACHE_HOME to a folder of your own"
                )
            folder.mkdir(exist_ok=True)
            if os.access(folder, os.W_OK) and " " not in str(folder) and folder.is_absolute():
                return folder
    return fallback / kind  # whoever needs it will say why it cannot be used


def wanted_cache() -> Path:
    """Where users look for caches."""
    home = Path(os.environ.get("HOME") or "/")
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "benchmark_cnn"


def free_gb(root: Path = Path("/")) -> float:
    """GB of memory that a new process can have, on the machine and within the limits of its control groups."""
    left = [psutil.virtual_memory().available]
    for folder in control_groups("memory", root):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most, now = read(folder / limit), read(folder / used)
            if most and now and most != "max":
                left.append(max(0, number(most) - number(now) + cached(folder)))
    return min(left) / 1e9


def cached(folder: Path) -> int:
    """Bytes of a control group's caches that the kernel gives to whoever needs memory."""
    counts = dict(re.findall(r"^(\w+) (\d{1,30})$", read(folder / "memory.stat") or "", re.MULTILINE))
    kinds = ("inactive_file", "active_file", "slab_reclaimable")
    return sum(int(counts.get(f"total_{kind}") or counts.get(kind) or 0) for kind in kinds)  # v1 with its children, v2


def describe(root: Path = Path("/")) -> Machine:
    """This machine; `root` is where /proc and /sys lie. Raises Problem where it is not Linux."""
    if platform.system() != "Linux":
        raise Problem(
            f"{platform.system()} is not supported: page faults, memory and cores are read from Linux's /proc"
        )
    info = next(iter(processors(root).values()), {})
    called = next(filter(None, map(info.get, ("model name", "Model Name", "cpu", "uarch"))), "")  # x86, Loong, POWER, V
    vendor = VENDORS.get(info.get("vendor_id") or info.get("CPU implementer", ""))
    vendor = vendor or re.sub("[^a-z0-9]", "", called.split(", ")[0].lower())[:20] or "unknown"
    architecture = info.get("CPU architecture", "").replace("AArch64", "8")  # as older kernels call it
    family = number(info.get("cpu family") or architecture)
    model = number(info.get("model") or info.get("CPU part") or info.get("processor 0", "").rpartition("machine = ")[2])
    flags = set((info.get("flags") or info.get("Features") or "").split())
    isa = [name for name, any_of in ISA.items() if flags & set(any_of)]
    brand = re.sub(r"\((R|TM)\)|\d+-Core|Processor|CPU|@.*", "", called or vendor).strip()
    performance, efficient = usable_by_kind(root)
    if on_efficient_cores(root):
        cores, kinds = f"{performance}e", {"E-core": performance}
    elif efficient:
        cores, kinds = f"{performance}p{efficient}e", {"P-core": performance, "E-core": efficient}
    else:
        cores, kinds = f"{performance}c", {"core": performance}
    counts = " and ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in kinds.items())
    shown = [name for name in isa if name not in ("AVX2", "VNNI") or "AVX-512" not in isa]
    kind = ", ".join([microarchitecture(vendor, family, model), *shown])
    return Machine(
        name=f"{vendor}-{family}.{model}-{cores}",
        label=f"{' '.join(brand.split())} ({kind}), {counts}",
        isa=isa,
        native_bf16="BF16" in isa or "AMX" in isa,
        cores=performance,
        governor=read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        huge_pages=read("/sys/kernel/mm/transparent_hugepage/enabled"),
        ram_gb=round(psutil.virtual_memory().total / 1e9, 1),
        virtual="hypervisor" in flags,
        kernel=platform.release(),
        libc=" ".join(platform.libc_ver()),
        python=platform.python_version(),
    )


def processors(root: Path = Path("/")) -> dict[int, dict[str, str]]:
    """CPU -> its lines of /proc/cpuinfo, those of this process's affinity mask first, and of these the P-cores."""
    blocks = {}
    for number_from_0, text in enumerate((read(root / "proc/cpuinfo") or "").split("\n\n")):
        lines = (line.partition(":") for line in text.splitlines())
        block = {key.strip(): value.strip() for key, _, value in lines}
        blocks[number(block.get("processor"), number_from_0)] = block
    mask, efficient = os.sched_getaffinity(0), efficient_cpus(root)
    return dict(sorted(blocks.items(), key=lambda item: (item[0] not in mask, item[0] in efficient, item[0])))


def number(text: str | None, missing: float = 0) -> float:
    """That which a text begins with, a whole one or 0x12 as an int; `missing` where it begins with none."""
    if found := re.match(r"0x[0-9a-fA-F]{1,16}", text or ""):
        return int(found[0], 16)
    found = re.match(r"-?\d{1,30}(\.\d+)?", text or "")
    return missing if not found else float(found[0]) if found[1] else int(found[0])


def microarchitecture(vendor: str, family: int, model: int) -> str:
    """`Zen 4`; on Arm by archspec's part numbers; `family 6 model 167` where neither table has it."""
    for first, last, name in MICROARCHITECTURES.get((vendor, family), ()):
        if first <= model <= last:
            return name
    if vendor not in ("amd", "intel"):
        from archspec.cpu import TARGETS

        for name, target in TARGETS.items():
            if target.vendor.lower() == vendor and target.cpu_part == f"0x{model:03x}":
                kind, _, generation = name.partition("_")
                return f"{kind.title()} {generation.upper()}".strip()
    return f"family {family} model {model}"


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
    """Physical cores in this process's affinity mask, of a hybrid CPU the P-cores; at least one, at most the control
    group's quota. `root` is where /proc and /sys lie."""
    return usable_by_kind(root)[0]


def usable_by_kind(root: Path = Path("/")) -> tuple[int, int]:
    """`physical_cores` within the control group's quota, which takes away the E-cores first."""
    performance, efficient = physical_cores(root)
    quota = cgroup_quota(root)
    most = max(1, math.floor(quota)) if quota else performance + efficient
    performance = min(performance, most)
    return performance, min(efficient, most - performance)


def physical_cores(root: Path = Path("/")) -> tuple[int, int]:
    """(P-cores, E-cores) in this process's affinity mask; (all, 0) where they are of one kind."""

    info = processors(root)

    def core(cpu: int) -> str:
        """The same for the hardware threads of one core."""
        ids = [info.get(cpu, {}).get(key) for key in ("physical id", "core id")]  # where a sandbox hides /sys
        siblings = read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        return siblings or (str(ids) if all(ids) else str(cpu))

    mask = os.sched_getaffinity(0)
    efficient = mask & efficient_cpus(root)
    counts = [len({core(cpu) for cpu in cpus}) for cpus in (mask - efficient, efficient)]
    return (counts[0], counts[1]) if counts[0] else (counts[1], 0)


def efficient_cpus(root: Path) -> set[int]:
    """The E-cores of hybrid CPUs: Intel's, and on Arm those to which the kernel gives much less capacity."""
    capacity = {}
    for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpu_capacity"):
        capacity[number(path.parent.name[3:])] = number(read(path))
    small = {cpu for cpu, points in capacity.items() if points < EFFICIENT * max(capacity.values())}
    return {*listed(read(root / "sys/devices/cpu_atom/cpus"))} or small


def on_efficient_cores(root: Path) -> bool:
    """Whether this process may use E-cores alone."""
    return os.sched_getaffinity(0) <= efficient_cpus(root)


def listed(cpus: str | None) -> list[int]:
    """`0-2,7` as numbers."""
    ends = re.findall(r"(\d{1,5})(?:-(\d{1,5}))?", cpus or "")
    return [cpu for first, last in ends for cpu in range(int(first), int(last or first) + 1)]


class BackgroundLoad:
    """What keeps this process from the CPUs of its affinity mask from now on, in CPUs: 1.0 is one CPU all the time."""

    def __init__(self, threads: int, root: Path = Path("/")):
        self.root, self.free = root, max(0, sum(physical_cores(root)) - threads)
        self.before = self.now()

    def now(self) -> tuple[float, ...]:
        """Seconds: of the clock, of the CPUs in use, of this process, throttled, and stolen by the hypervisor."""
        times = psutil.cpu_times(percpu=True)
        online = listed(read(self.root / "sys/devices/system/cpu/online")) or range(len(times))
        usable = [cpu for number, cpu in zip(online, times, strict=False) if number in os.sched_getaffinity(0)]
        used = sum(cpu.user + cpu.nice + cpu.system + cpu.irq + cpu.softirq for cpu in usable)
        stolen = sum(cpu.steal for cpu in usable)
        return time.perf_counter(), used, time.process_time(), throttled_s(self.root), stolen

    def cpus(self) -> tuple[float, float, float]:
        """(used by others beyond what the threads leave free, throttled, stolen) since the start."""
        changes = (now - before for now, before in zip(self.now(), self.before, strict=True))
        clock, used, by_this_process, throttled, stolen = changes
        return max(0.0, (used - by_this_process) / clock - self.free), throttled / clock, stolen / clock


def throttled_s(root: Path = Path("/")) -> float:
    """Seconds for which quotas have stopped CPUs of this process's control groups and their ancestors."""
    seconds = 0.0
    for folder in control_groups("cpu", root):
        counts = dict(re.findall(r"^(\w+) (\d{1,30})$", read(folder / "cpu.stat") or "", re.MULTILINE))
        seconds += int(counts.get("throttled_usec", 0)) / 1e6 + int(counts.get("throttled_time", 0)) / 1e9  # v2, v1
    return seconds


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPUs that the control groups may use at a time, the least of all ancestors, or None where none sets a limit."""
    quotas = []
    for folder in control_groups("cpu", root):
        quota, _, period = (read(folder / "cpu.max") or "").partition(" ")
        if not quota:
            quota, period = read(folder / "cpu.cfs_quota_us") or "-1", read(folder / "cpu.cfs_period_us")
        if number(quota) > 0:  # not `max`, -1
            quotas.append(number(quota) / (number(period) or 100000))
    return min(quotas, default=None)


def control_groups(controller: str, root: Path = Path("/")) -> list[Path]:
    """The folders of this process's control group and of all its ancestors (cgroup v2, then v1). In a container the
    topmost may have another path outside."""
    folders = []
    for line in (read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if path and (not controllers or controller in controllers.split(",")):
            base = root / "sys/fs/cgroup"
            top = base / controller if controllers else base
            top = top if top.is_dir() else base / controllers  # cpu,cpuacct without a link of the name cpu
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
    return f"{head.stdout.strip()}+" if changed.returncode == 1 else head.stdout.strip()


def boot_id() -> str:
    return read("/proc/sys/kernel/random/boot_id") or ""


def host_id() -> str:
    """Identifies a host across reboots: 12 hex digits, a hash of the machine id and the network card's address like
    systemd's app-specific ids. "" where either is missing, or where no maker assigned the address."""
    machine_id, address = read("/etc/machine-id") or "", uuid.getnode()
    # Virtual machines of one image share its machine id, and often a local address such as 02:fc:00:00:00:01.
    local_or_random = address >> 40 & 0b11
    if local_or_random or not re.fullmatch("[0-9a-f]{32}", machine_id):
        return ""
    return hashlib.blake2b(b"benchmark_cnn %012x" % address, key=machine_id.encode(), digest_size=6).hexdigest()


def read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip()
    except (OSError, ValueError):  # no path holds a zero byte
        return None
