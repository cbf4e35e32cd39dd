"""The machine, from the texts of three makers' /proc/cpuinfo and from control groups on disk."""

import os
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from segbench import machine

AMD = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC 9755 128-Core Processor
cpu MHz\t\t: 2596.096
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 hypervisor

processor\t: 1
vendor_id\t: GenuineIntel
"""
INTEL = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 207
model name\t: INTEL(R) XEON(R) PLATINUM 8581C CPU @ 2.10GHz
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile
"""
OLD_INTEL = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 158
model name\t: Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz
flags\t\t: fpu avx2
"""
ARM = """processor\t: 0
BogoMIPS\t: 2000.00
Features\t: fp asimd bf16 sve i8mm
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd4f
"""


@pytest.mark.parametrize(
    ("text", "name", "label", "isa", "native"),
    [
        (AMD, "amd-26.2", "AMD EPYC 9755 (Zen 5, AVX-512, BF16)", ["AVX2", "AVX-512", "VNNI", "BF16"], True),
        (
            INTEL,
            "intel-6.207",
            "INTEL XEON PLATINUM 8581C (Emerald Rapids, AVX-512, BF16, AMX)",
            ["AVX2", "AVX-512", "VNNI", "BF16", "AMX"],
            True,
        ),
        (OLD_INTEL, "intel-6.158", "Intel Core i7-8700 (family 6 model 158, AVX2)", ["AVX2"], False),
        (ARM, "arm-8.3407", "arm (Neoverse V2, BF16, SVE)", ["BF16", "SVE"], True),
    ],
    ids=["amd", "intel", "without bf16", "arm"],
)
def test_a_machine_is_known_by_its_cpuinfo(tmp_path, text, name, label, isa, native):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(text)
    here = machine.describe(tmp_path)
    assert (here.name, here.label) == (f"{name}-{here.cores}c", f"{label}, {here.cores} cores")
    assert (here.isa, here.native_bf16, here.virtual) == (isa, native, "hypervisor" in text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (ARM.replace("architecture: 8", "architecture: AArch64"), "arm-8.3407"),
        (ARM.replace("architecture: 8", "architecture: 5TEJ"), "arm-5.3407"),
        (AMD.replace("model\t\t: 2", "model\t\t: unknown"), "amd-26.0"),
        (AMD.replace("2596.096", ""), "amd-26.2"),
        (AMD.encode("utf-16").decode("latin-1"), "unknown-0.0"),
        ("", "unknown-0.0"),
        ("processor : 0\ncpu : POWER9, altivec supported\n\nplatform : PowerNV\nmodel : 9006-12P\n", "power9-0.0"),
        ("processor : 0\nhart : 1\nisa : rv64imafdcv\nuarch : spacemit,x60\n", "spacemitx60-0.0"),
        ("vendor_id : IBM/S390\nprocessor 0: version = 00,  machine = 3931\n\ncpu number : 0\n", "ibm-0.3931"),
        ("processor : 0\nCPU Family : Loongson-64bit\nModel Name : Loongson-3A6000\n", "loongson3a6000-0.0"),
        (ARM.replace("0x41", "0xc0").replace("0xd4f", "0xac3"), "ampere-8.2755"),
    ],
)
def test_odd_cpuinfo_still_names_a_machine(tmp_path, text, name):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(text)
    here = machine.describe(tmp_path)
    assert here.name == f"{name}-{here.cores}c"


def test_hardware_threads_are_one_core_without_sys(tmp_path, monkeypatch):
    blocks = [f"processor : {cpu}\nphysical id : 0\ncore id : {cpu % 2}\n" for cpu in range(4)]
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("\n".join(blocks))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert machine.usable_cores(tmp_path) == 2
    (tmp_path / "proc/cpuinfo").write_text("\n".join(blocks).replace("core id : 1", "core id :"))
    assert machine.usable_cores(tmp_path) == 3


def test_the_cpu_is_one_of_those_that_this_process_may_use(tmp_path, monkeypatch):
    """Of a phone's cores of two kinds."""
    little = ARM.replace("0xd4f", "0xd05")
    (tmp_path / "proc").mkdir()
    big = ARM.replace("processor\t: 0", "processor\t: 1")
    (tmp_path / "proc/cpuinfo").write_text(f"{little}\n{big}")
    for cpu, name in ((0, "arm-8.3333-1c"), (1, "arm-8.3407-1c")):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cpu=cpu: {cpu})
        assert machine.describe(tmp_path).name == name


def group(root: Path, self_cgroup: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(self_cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("--", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        ("0::/job\n", {"job__cpu--max": "150000 100000"}, 1.5),
        ("0::/job\n", {"job__cpu--max": "max 100000"}, None),
        ("0::/job\n", {"cpu--max": "50000 100000"}, 0.5),
        ("0::/\n", {}, None),
        ("0::/outer/job\n", {"outer__job__cpu--max": "max 100000", "outer__cpu--max": "250000 100000"}, 2.5),
        ("0::/outer/job\n", {"outer__job__cpu--max": "100000 100000", "outer__cpu--max": "250000 100000"}, 1),
        ("4:cpu:/outer/job\n", {"cpu__outer__cpu--cfs_quota_us": "150000"}, 1.5),
        ("4:cpu,cpuacct:/job\n", {"cpu,cpuacct__cpu--cfs_quota_us": "150000"}, 1.5),
        (
            "4:cpu,cpuacct:/job\n",
            {"cpu__job__cpu--cfs_quota_us": "300000", "cpu__job__cpu--cfs_period_us": "100000"},
            3,
        ),
        ("4:cpu,cpuacct:/job\n", {"cpu__cpu--cfs_quota_us": "-1"}, None),
        ("3:memory:/job\n", {}, None),
        ("4:cpu:/\n", {"cpu__cpu--cfs_quota_us": "150000", "cpu__cpu--cfs_period_us": "0"}, 1.5),
        ("0::/job\nout of form\n", {"job__cpu--max": "150000 100000"}, 1.5),
        ("0::/job\n", {"job__cpu--max": "?"}, None),
    ],
)
def test_quotas_of_both_kinds_of_control_groups(tmp_path, cgroup, files, quota):
    assert machine.cgroup_quota(group(tmp_path, cgroup, **files)) == quota


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/outer/job\n", {"outer__memory--max": "3000000000", "outer__memory--current": "1000000000"}),
        ("0::/job\n", {"memory--max": "3000000000", "memory--current": "1000000000", "job__memory--max": "max"}),
        (
            "7:memory:/job\n",
            {"memory__job__memory--limit_in_bytes": "3000000000", "memory__job__memory--usage_in_bytes": "1000000000"},
        ),
        # What of it is page cache is given to whoever needs it.
        (
            "0::/job\n",
            {
                "job__memory--max": "3000000000",
                "job__memory--current": "2900000000",
                "job__memory--stat": "anon 1000000000\ninactive_file 900000000\nactive_file 1000000000\n",
            },
        ),
        (
            "7:memory:/job\n",
            {
                "memory__job__memory--limit_in_bytes": "3000000000",
                "memory__job__memory--usage_in_bytes": "2900000000",
                "memory__job__memory--stat": "inactive_file 5\ntotal_inactive_file 1900000000\n",
            },
        ),
    ],
)
def test_a_containers_memory_is_what_any_of_its_groups_leaves(tmp_path, cgroup, files):
    assert machine.free_gb(group(tmp_path, cgroup, **files)) == 2


@pytest.fixture
def uncached():
    machine.cache_folder.cache_clear()
    yield
    machine.cache_folder.cache_clear()


@pytest.mark.parametrize("bad", ["", "relative", "my cache", "/proc/nowhere"])
def test_the_cache_lies_where_a_compiler_can_use_it(tmp_path, monkeypatch, uncached, bad):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / bad) if bad == "my cache" else bad)
    folder = machine.cache_folder()
    assert folder.is_absolute() and " " not in str(folder) and os.access(folder, os.W_OK)
    assert not (tmp_path / "benchmark_cnn").exists()


def test_the_cache_is_of_one_kind_of_machine(tmp_path, monkeypatch, uncached):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = machine.cache_folder()
    assert first.parent == tmp_path / "benchmark_cnn"
    other = msgspec.structs.replace(machine.describe(), isa=["AVX2"])
    monkeypatch.setattr(machine, "describe", lambda: other)
    machine.cache_folder.cache_clear()
    assert machine.cache_folder() != first


def topology(root: Path, siblings: dict[int, str]) -> None:
    for cpu, text in siblings.items():
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(text)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 2), ("150000 100000", 1), ("200000 100000", 2), ("10000 100000", 1)],
    ids=["none", "1.5 CPUs", "2 CPUs", "a tenth"],
)
def test_usable_cores_are_physical_within_the_mask_and_the_quota(tmp_path, monkeypatch, quota, cores):
    """Four hardware threads of two cores, of which a fifth is not in the mask."""
    group(tmp_path, "0::/\n", **{"cpu--max": quota})
    topology(tmp_path, {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3", 4: "4"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert machine.usable_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("mask", "quota", "name", "cores"),
    [
        (range(6), "max", "2p2e", "2 P-cores and 2 E-cores"),
        ((0, 1, 2, 3), "max", "2c", "2 cores"),
        ((4, 5), "max", "2e", "2 E-cores"),
        ((0, 1, 4), "max", "1p1e", "1 P-core and 1 E-core"),
        (range(6), "300000", "2p1e", "2 P-cores and 1 E-core"),
        (range(6), "150000", "1c", "1 core"),
    ],
)
def test_a_hybrid_cpu_computes_on_its_p_cores(tmp_path, monkeypatch, mask, quota, name, cores):
    """Two P-cores of two hardware threads, and two E-cores."""
    group(tmp_path, "0::/\n", **{"cpu--max": f"{quota} 100000"})
    topology(tmp_path, {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3", 4: "4", 5: "5"})
    for kind, cpus in (("cpu_core", "0-3"), ("cpu_atom", "4-5")):
        (tmp_path / "sys/devices" / kind).mkdir()
        (tmp_path / "sys/devices" / kind / "cpus").write_text(cpus)
    (tmp_path / "proc/cpuinfo").write_text(OLD_INTEL)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*mask})
    here = machine.describe(tmp_path)
    assert here.name == f"intel-6.158-{name}" and here.label.endswith(f", {cores}")
    assert here.cores == machine.usable_cores(tmp_path) == int(name[0])


def test_e_cores_of_arm_are_those_of_less_capacity(tmp_path, monkeypatch):
    """Apple's: cores of two kinds; the machine is named by the P-cores."""
    blocks = [ARM.replace("0x41", "0x61").replace("0xd4f", part) for part in ("0x022", "0x023")]
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"{blocks[0]}\n{blocks[1].replace(': 0', ': 1', 1)}")
    for cpu, capacity in ((0, 485), (1, 1024)):
        path = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity"
        path.parent.mkdir(parents=True)
        path.write_text(f"{capacity}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    here = machine.describe(tmp_path)
    assert (here.name, here.cores) == ("apple-8.35-1p1e", 1) and "(M1, " in here.label
    (tmp_path / "sys/devices/system/cpu/cpu0/cpu_capacity").write_text("1024")
    assert machine.describe(tmp_path).name == "apple-8.34-2c"


@pytest.mark.parametrize(("threads", "others"), [(2, 0.5), (1, 0.0)], ids=["on all cores", "a core is free"])
@pytest.mark.parametrize(
    ("cgroup", "stat"),
    [("0::/outer/job\n", "outer__cpu--stat"), ("4:cpu,cpuacct:/job\n", "cpu__job__cpu--stat")],
    ids=["v2", "v1"],
)
def test_others_count_on_the_mask_beyond_what_the_threads_leave_free(
    tmp_path, monkeypatch, threads, others, cgroup, stat
):
    """In two seconds of which this process computes for two, on CPUs 1 and 3; CPU 2 is off."""
    throttled = "throttled_usec {0}000000" if cgroup.startswith("0") else "throttled_time {0}000000000"
    root = group(tmp_path, cgroup, **{stat: f"nr_throttled 7\n{throttled.format(5)}\n"})
    topology(root, {1: "1", 3: "3"})
    (root / "sys/devices/system/cpu/online").write_text("0-1,3\n")
    busy = [scpu(used) for used in (10, 10, 10)]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3})
    monkeypatch.setattr(machine.psutil, "cpu_times", lambda percpu: busy)
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: 0, process_time=lambda: 0))
    load = machine.BackgroundLoad(threads, root)
    busy[:] = [scpu(12), scpu(12), scpu(11, steal=1)]
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: 2, process_time=lambda: 2))
    path = next(root.glob("sys/fs/cgroup/**/cpu.stat"))
    path.write_text(f"nr_throttled 9\n{throttled.format(6)}\n")
    assert load.cpus() == (others, 0.5, 0.5)


def scpu(user: float, steal: float = 0) -> SimpleNamespace:
    return SimpleNamespace(user=user, nice=0, system=0, irq=0, softirq=0, steal=steal)


def test_what_is_not_installed_is_missing():
    assert machine.installed(("pytest", "no-such-package")) == {
        "pytest": pytest.__version__,
        "no-such-package": "missing",
    }
