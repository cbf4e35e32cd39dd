"""Visits of a made-up machine whose truth is known: what a network takes in the median process on the undisturbed host.

What visits scatter by follows the committed journals (study_machines.csv): a visit's luck 2 %, what differs between
sessions and no reading shows 2.1 %, a host that wanders by 2 % within a minute, single readings by 2 %.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from segbench.cases import Case, Visit
from segbench.stats import BETWEEN

READINGS_MS = np.array([3.4, 1.3])  # of the yardsticks on the undisturbed host: convolution, GEMM
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
VISIT_S = 4  # from one visit to the next
SAMPLES = 14
SLOPES = {"torch": 1.7, "openvino": 0.9}  # by which power of the convolution's reading a network goes, in the mean
MODES = {"baseline": (1.0, "torch"), "compile": (0.7, "torch"), "openvino": (0.5, "openvino")}  # latency over eager's


@dataclass
class Machine:
    """One host; all shares are of visits unless said otherwise."""

    level: float = 1.0  # by what factor it is slower
    modes: tuple[str, ...] = tuple(MODES)
    models: int = 5
    offset: float = 1.0  # factor by which a runtime's process reads the yardsticks
    slow_state: float = 0.0  # share of the samples in a state that is 1.5 times as slow
    drift: float = 0.0  # by what share everything gets slower within an hour
    contended: float = 0.0  # share of visits beside another busy process, 2 to 50 times as slow
    hidden: bool = False  # whether the contention is the hypervisor's, which no count of CPUs shows
    slow_process: float = 0.0  # share of processes that are 1.5 times as slow for no visible reason
    luck: float = 0.02
    host: str = "host"
    truth_ms: dict[Case, float] = field(default_factory=dict)
    clean: dict[Case, int] = field(default_factory=dict)  # visits that nothing but luck touched

    def visits(self, rng: np.random.Generator, rounds: int, session: str = "a") -> list[Visit]:
        """A session; `truth_ms` and `clean` are filled in."""
        cases = []
        for model in range(self.models):
            eager_ms = self.level * 12 * 1.35**model * rng.lognormal(0, 0.1)
            for mode in self.modes:
                case = Case(model=f"model_{model}", mode=mode, size=(512, 512), threads=2)
                factor, runtime = MODES[mode]
                latency_ms = self.truth_ms.setdefault(case, eager_ms * factor)
                cases.append(
                    (case, runtime, latency_ms * rng.lognormal(0, BETWEEN), SLOPES[runtime] + rng.normal(0, 0.2))
                )
        total = rounds * len(cases)
        drift = np.log1p(self.drift) * VISIT_S / 3600 * (np.arange(total) - total / 2)
        wander, found = 0.0, []
        for place in range(total):
            if place % len(cases) % len(self.modes) == 0 and place % len(cases) == 0:
                order = rng.permutation(self.models)
            wander = 0.93 * wander + rng.normal(0, 0.02 * np.sqrt(1 - 0.93**2))
            model, mode = divmod(place % len(cases), len(self.modes))
            case, runtime, latency_ms, slope = cases[order[model] * len(self.modes) + mode]
            found.append(self.visit(rng, case, runtime, latency_ms, slope, wander + drift[place]))
            found[-1].round, found[-1].session = place // len(cases) + 1, session
            found[-1].started = (BEGIN + timedelta(seconds=VISIT_S * place)).isoformat()
        return found

    def visit(self, rng, case: Case, runtime: str, latency_ms: float, slope: float, level: float) -> Visit:
        contention = np.exp(rng.uniform(np.log(2), np.log(50))) if rng.random() < self.contended else 1.0
        slow = 1.5 if rng.random() < self.slow_process else 1.0
        self.clean[case] = self.clean.get(case, 0) + (contention == slow == 1)
        states = np.where(rng.random(SAMPLES + 1) < self.slow_state, 1.5, 1.0)
        offset = self.offset if runtime != "torch" else 1.0
        # A spinning barrier loses other shares of a reading and of a sample, and never less than half of the factor.
        beside = contention ** rng.uniform(0.7, 1.0, (SAMPLES + 1, 2))
        readings = np.column_stack([np.exp(level) * states * offset, np.full(SAMPLES + 1, np.exp(0.3 * level))])
        readings = self.level * READINGS_MS * readings * beside * rng.lognormal(0, (0.02, 0.01), (SAMPLES + 1, 2))
        samples = latency_ms * rng.lognormal(0, self.luck) * slow * np.exp(slope * level) * contention
        samples = samples * np.maximum(states[1:], states[:-1]) * rng.lognormal(0, 0.01, SAMPLES)
        others = 1.0 if contention > 1 and not self.hidden else 0.0
        return Visit(case=case, samples_ms=samples.tolist(), readings_ms=readings.tolist(), others_cpus=others)


def by_case(visits: list[Visit]) -> dict[Case, list[Visit]]:
    cases: dict[Case, list[Visit]] = {}
    for visit in visits:
        cases.setdefault(visit.case, []).append(visit)
    return cases
