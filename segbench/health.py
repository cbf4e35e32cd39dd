"""What disturbed a session, in words: the number, what follows from it, and what to do."""

from collections import defaultdict
from datetime import datetime

import numpy as np

from . import references, stats
from .cases import Visit
from .journal import Journal

HARDLY_QUIET = 0.05  # of the samples
DRIFT = 1.05  # factor between stretches of a session that is worth a word
BUSY_CPUS = 0.1  # of one CPU, used by others
STOLEN_CPUS = 0.05
PAGE_FAULTS = 500  # per inference: 2 MB that the allocator gave back and fetched again


def seconds_since_epoch(started: str) -> float:
    return datetime.fromisoformat(started).timestamp()


def session_readings(journal: Journal) -> dict[tuple[str, int], stats.Readings]:
    """(session, threads) -> all readings of the yardsticks."""
    found: dict[tuple[str, int], stats.Readings] = {}
    for line in journal.with_readings():
        readings = found.setdefault((line.session, line.threads), stats.Readings())
        readings.add(seconds_since_epoch(line.started), line.readings_ms)
    return found


def warnings(visits: list[Visit], readings: stats.Readings, reference: stats.Reference) -> dict[str, str]:
    """By kind, for visits of one session and one number of threads that took readings."""
    warnings: dict[str, str] = {}
    if not visits:
        return warnings
    if (drift := readings.drift()) > DRIFT:
        warnings["drift"] = (
            f"the undisturbed speed moved by a factor of {drift:.2f} within the session, so fewer samples of its "
            "slower stretches count; if it goes on, look for heat or a power limit"
        )
    masks = [stats.in_band(visit.readings_ms, reference.bound_ms) for visit in visits]
    share = float(np.concatenate(masks).mean())
    if share < HARDLY_QUIET and len(masks) > 1:
        warnings["quiet"] = (
            f"only {share:.1%} of the samples were undisturbed, so rows may be `unsettled`; close what else runs, come "
            "back at another hour, or give a larger --budget and more --rounds"
        )
    others, stolen = (float(np.median([getattr(v, name) for v in visits])) for name in ("others_cpus", "stolen_cpus"))
    if others > BUSY_CPUS:
        warnings["busy"] = (
            f"other processes used {others:.2f} CPUs meanwhile, so most samples are disturbed and a visit takes "
            "longer; stop them, or leave cores to them with --threads"
        )
    if stolen > STOLEN_CPUS:
        warnings["stolen"] = (
            f"the hypervisor gave {stolen:.2f} CPUs to other machines meanwhile, so most samples are disturbed; come "
            "back at another hour, or take a machine with cores of its own"
        )
    faults = [visit.page_faults for visit in visits if visit.case.allocator == "pinned"]
    if faults and (often := float(np.median(faults))) > PAGE_FAULTS:
        warnings["allocator"] = (
            f"{often:.0f} page faults per inference though the allocator was to keep its memory: torch is served by "
            "another one than glibc's, so read `pinned` as `plain`"
        )
    return warnings


def summary(journal: Journal) -> list[str]:
    """What a reader should know of a journal's sessions before trusting it."""
    lines, visits, readings, known = [], defaultdict(list), session_readings(journal), references.of_journal(journal)
    for visit in journal.visits:
        if visit.readings_ms:
            visits[visit.session, visit.case.threads].append(visit)
    for (session, threads), of_session in sorted(visits.items()):
        started = journal.headers[session].started[:16].replace("T", " ")
        texts = warnings(of_session, readings[session, threads], known[threads]).values()
        lines += [f"session of {started}: {text}" for text in texts]
    return [*lines, *nodes_apart(journal)]


def nodes_apart(journal: Journal) -> list[str]:
    """Which nodes, known by their boot ids, are slower than the fastest one by more than either scatters where nothing
    disturbs them: another make of the same kind of CPU, or a node that never is undisturbed."""
    nodes: dict[int, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for (session, threads), readings in session_readings(journal).items():
        nodes[threads][journal.headers[session].boot_id].append(readings.all())
    lines = []
    for threads, of_node in sorted(nodes.items()):
        together = {node: np.concatenate(some) for node, some in of_node.items()}
        known = {node: stats.reference(some) for node, some in together.items() if len(some) >= references.ENOUGH}
        for number, yardstick in enumerate(("convolution", "GEMM")):
            level = {node: reference.level_ms[number] for node, reference in known.items()}
            band = {node: reference.bound_ms[number] / level[node] for node, reference in known.items()}
            fastest = min(level, key=level.get, default="")
            lines += [
                f"node {node[:8]} (its boot id) differs from {fastest[:8]} by more than either scatters: undisturbed, "
                f"the yardstick {yardstick} takes it {level[node] / level[fastest]:.2f} times as long with {threads} "
                "threads; measure it into a journal of its own with --label, or compare only within a node"
                for node in level
                if level[node] > level[fastest] * max(band[node], band[fastest])
            ]
    return lines
