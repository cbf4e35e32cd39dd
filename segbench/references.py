"""What the yardsticks read on a machine that nothing disturbs: one for all journals of the machine, kept in
results/references.json and never changed, for estimates of two benchmarks or two days compare only at one level."""

from pathlib import Path

import msgspec
import numpy as np

from . import stats
from .journal import Journal, replacing

PATH = Path(__file__).resolve().parents[1] / "results" / "references.json"
ENOUGH = 1000  # readings, from which on a reference is kept

References = dict[int, stats.Reference]  # by number of threads


def kept() -> dict[str, References]:
    """By the names of machines."""
    return msgspec.json.decode(PATH.read_bytes(), type=dict[str, References]) if PATH.exists() else {}


def of_journal(journal: Journal) -> References:
    """What is kept of its machine, or else what its own readings say."""
    known = kept().get(journal.header.machine.name, {})
    return found([journal], skip=known.keys()) | known


def found(journals: list[Journal], skip=(), enough: int = 1) -> References:
    """By the readings of all sessions of these journals, for numbers of threads with enough of them."""
    readings: dict[int, list] = {}
    for journal in journals:
        for line in journal.with_readings():
            readings.setdefault(line.threads, []).append(line.readings_ms)
    together = {threads: np.concatenate(blocks) for threads, blocks in readings.items() if threads not in skip}
    return {threads: stats.reference(some) for threads, some in together.items() if len(some) >= enough}


def keep(journals: list[Journal]) -> bool:
    """Add what is not known yet of the machines of these journals; whether anything was."""
    machines: dict[str, list[Journal]] = {}
    for journal in journals:
        machines.setdefault(journal.header.machine.name, []).append(journal)
    known = kept()
    new = {name: found(some, known.get(name, {}).keys(), ENOUGH) for name, some in machines.items()}
    if not any(new.values()):
        return False
    for name, references in new.items():
        known[name] = known.get(name, {}) | {
            threads: stats.Reference(*(tuple(round(ms, 4) for ms in pair) for pair in reference))
            for threads, reference in references.items()
        }
    ordered = {name: dict(sorted(known[name].items())) for name in sorted(known) if known[name]}
    with replacing(PATH) as draft:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
    return True
