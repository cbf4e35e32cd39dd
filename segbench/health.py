"""What disturbed a session, in words: the number, what follows from it, and what to do."""

from collections import defaultdict
from datetime import datetime

import numpy as np

from . import references, stats
from .cases import Visit
from .journal import Journal

HARDLY_QUIET = 0.05  # of the samples
DRIFT, HOSTS = 1.05, 1.1  # factors between stretches of a session, and between sessions, that are worth a word
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
    for threads in sorted({threads for _, threads in visits}):
        low = np.array([np.quantile(readings[key].all(), stats.LOW, axis=0) for key in visits if key[1] == threads])
        apart = low.max(axis=0) / low.min(axis=0)
        if (apart > HOSTS).any():
            lines.append(
                f"sessions with {threads} threads differ in their undisturbed readings by {apart[0]:.2f} (convolution) "
                f"and {apart[1]:.2f} (GEMM): another host of this kind, or a machine that never was undisturbed; "
                "compare only within a session"
            )
    return lines
