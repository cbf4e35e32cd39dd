"""Runs of made-up machines whose truth is known: the latency of the median process on an idle host.
Run as a script it prints what the rule makes of them, a row a machine: `uv run tests/simulated.py`.

The scatter follows the committed run logs (studies/estimator_kinds.csv): a process's luck 2 %, differences between
sessions that no reference time shows 2.1 %, the level of a session 2 %, drift within a minute 2 %, single reference
times 2 %.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
from tabulate import tabulate

from segbench.analysis import estimates, stats
from segbench.cases import Case
from segbench.records import Run

REFERENCE_MS = np.array([3.4, 1.3])  # convolution and GEMM of the reference workload on an idle host
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
RUN_S = 4  # from one run to the next
SAMPLES = 14
SLOPES = {"torch": 1.7, "openvino": 0.9}  # mean power of the convolution's time that a latency goes with
MODES = {"baseline": (1.0, "torch"), "compile": (0.7, "torch"), "openvino": (0.5, "openvino")}  # latency over eager's


@dataclass
class Machine:
    """One host; all shares are of runs unless said otherwise."""

    level: float = 1.0  # by what factor it is slower
    modes: tuple[str, ...] = tuple(MODES)
    models: int = 5
    offset: float = 1.0  # factor on the reference workload's time in a runtime's process
    slow_state: float = 0.0  # share of the samples in a state that is 1.5 times as slow
    drift: float = 0.0  # by what share everything gets slower within an hour
    contended: float = 0.0  # share of runs beside another busy process, 2 to 50 times as slow
    hidden: bool = False  # whether the contention is the hypervisor's, which no count of CPUs shows
    slow_process: float = 0.0  # share of processes that are 1.5 times as slow for no visible reason
    luck: float = 0.02
    between: float = stats.LEVEL  # standard deviation of the level of sessions
    truth_ms: dict[Case, float] = field(default_factory=dict)
    clean: dict[Case, int] = field(default_factory=dict)  # runs that nothing but luck touched

    def runs(self, rng: np.random.Generator, rounds: int, session: str = "a") -> list[Run]:
        """A session; `truth_ms` and `clean` are filled in."""
        cases = []
        for model in range(self.models):
            eager_ms = self.level * 12 * 1.35**model * rng.lognormal(0, 0.1)
            for mode in self.modes:
                case = Case(model=f"model_{model}", mode=mode, size=(512, 512), threads=2)
                factor, runtime = MODES[mode]
                latency_ms = self.truth_ms.setdefault(case, eager_ms * factor)
                cases.append(
                    (case, runtime, latency_ms * rng.lognormal(0, stats.BETWEEN), SLOPES[runtime] + rng.normal(0, 0.2))
                )
        total = rounds * len(cases)
        drift = np.log1p(self.drift) * RUN_S / 3600 * (np.arange(total) - total / 2)
        wander, found, session_level = 0.0, [], rng.normal(0, self.between)
        for place in range(total):
            if place % len(cases) == 0:
                order = rng.permutation(self.models)
            wander = 0.93 * wander + rng.normal(0, 0.02 * np.sqrt(1 - 0.93**2))
            model, mode = divmod(place % len(cases), len(self.modes))
            case, runtime, latency_ms, slope = cases[order[model] * len(self.modes) + mode]
            found.append(self.run(rng, case, runtime, latency_ms, slope, session_level + wander + drift[place]))
            found[-1].round, found[-1].session = place // len(cases) + 1, session
            found[-1].started = (BEGIN + timedelta(seconds=RUN_S * place)).isoformat()
        return found

    def run(self, rng, case: Case, runtime: str, latency_ms: float, slope: float, level: float) -> Run:
        contention = np.exp(rng.uniform(np.log(2), np.log(50))) if rng.random() < self.contended else 1.0
        slow = 1.5 if rng.random() < self.slow_process else 1.0
        self.clean[case] = self.clean.get(case, 0) + (contention == slow == 1)
        states = np.where(rng.random(SAMPLES + 1) < self.slow_state, 1.5, 1.0)
        offset = self.offset if runtime != "torch" else 1.0
        # Load slows reference workload and sample by different shares of the factor.
        beside = contention ** rng.uniform(0.7, 1.0, (SAMPLES + 1, 2))
        reference_times = np.column_stack([np.exp(level) * states * offset, np.full(SAMPLES + 1, np.exp(0.3 * level))])
        reference_times = (
            self.level * REFERENCE_MS * reference_times * beside * rng.lognormal(0, (0.02, 0.01), (SAMPLES + 1, 2))
        )
        samples = latency_ms * rng.lognormal(0, self.luck) * slow * np.exp(slope * level) * contention
        samples = samples * np.maximum(states[1:], states[:-1]) * rng.lognormal(0, 0.01, SAMPLES)
        others = 1.0 if contention > 1 and not self.hidden else 0.0
        return Run(case=case, samples_ms=samples.tolist(), reference_ms=reference_times.tolist(), others_cpus=others)


MACHINES = {
    "idle": {},
    "1.3 times slower": {"level": 1.3},
    "a runtime whose reference times are 1.27 times as long": {"offset": 1.27},
    "torch absent": {"modes": ("openvino",)},
    "two states": {"slow_state": 0.4},
    "10 % slower every hour": {"drift": 0.1},
    "a third of the runs contended": {"contended": 0.33},
    "a third contended, unseen by the CPU's counts": {"contended": 0.33, "hidden": True},
    "all runs contended": {"contended": 1.0},
    "all contended, unseen by the CPU's counts": {"contended": 1.0, "hidden": True},
    "one process in ten 1.5 times as slow": {"slow_process": 0.1},
    "offset, drift and two states": {"offset": 1.27, "drift": 0.1, "slow_state": 0.3},
}
ROUNDS = (2, 4, 8, 16)


@dataclass
class Outcome:
    """Quality of the estimates over many run logs of one machine."""

    covered: list[bool] = field(default_factory=list)  # whether a 95 % interval holds the truth
    errors: list[float] = field(default_factory=list)  # log latency less the truth's, of cases that are well measured
    widths: list[float] = field(default_factory=list)  # of their intervals, over those of who knows the clean runs
    first: list[bool] = field(default_factory=list)  # whether the truly fastest mode is first or tied with it
    slow_tied: list[bool] = field(default_factory=list)  # whether a mode that takes 1.3 times as long is tied with it

    def add(self, machine: Machine, found: dict[Case, estimates.CaseEstimate]) -> None:
        for case, estimate in found.items():
            low, high = estimate.interval_ms
            self.covered.append(low <= machine.truth_ms[case] <= high)
            if self.well_measured(machine, case, estimate):
                level = SLOPES[MODES[case.mode][1]] * machine.between
                oracle = 1.96 * np.linalg.norm(
                    (machine.luck / machine.clean[case] ** 0.5, 2**0.5 * stats.BETWEEN, level)
                )
                self.widths.append(estimate.half_width / oracle)
                self.errors.append(np.log(estimate.latency_ms / machine.truth_ms[case]))
        for model in {case.model for case in found}:
            cases = [case for case in found if case.model == model]
            if len(cases) > 1 and all(self.well_measured(machine, case, found[case]) for case in cases):
                self.rank({case.mode: found[case] for case in cases})

    @staticmethod
    def well_measured(machine: Machine, case: Case, estimate: estimates.CaseEstimate) -> bool:
        return len(estimate.runs) >= 4 and machine.clean[case] >= 2

    def rank(self, found: dict[str, estimates.CaseEstimate]) -> None:
        best = min(found.values(), key=lambda estimate: estimate.latency_ms)
        tied = {mode for mode, each in found.items() if each is best or not estimates.speedup(each, best).low > 1}
        fastest = min(found, key=lambda mode: MODES[mode][0])
        self.first.append(fastest in tied)
        slow = [mode for mode in found if MODES[mode][0] >= 1.3 * MODES[fastest][0]]
        self.slow_tied += [mode in tied for mode in slow]

    def row(self) -> dict[str, float]:
        def mean(values: list, digits: int = 3) -> float:
            return round(float(np.mean(values)), digits) if values else float("nan")

        bias = round(100 * float(np.median(self.errors)), 2) if self.errors else float("nan")
        row = {"coverage": mean(self.covered), "bias, %": bias}
        row["width over the oracle's"] = round(float(np.median(self.widths)), 2) if self.widths else float("nan")
        return row | {"fastest first or tied": mean(self.first), "slow mode tied": mean(self.slow_tied)}


def outcome(name: str, run_logs: int, seed: int, rounds: tuple[int, ...] = ROUNDS) -> Outcome:
    """From so many run logs of each number of rounds."""
    result, streams = Outcome(), np.random.SeedSequence([seed, [*MACHINES].index(name)])
    for stream, count in zip(streams.spawn(run_logs * len(rounds)), rounds * run_logs, strict=True):
        machine = Machine(**MACHINES[name])
        runs = machine.runs(np.random.default_rng(stream), count)
        result.add(machine, estimates.of_cases(by_case(runs)))
    return result


def by_case(runs: list[Run]) -> dict[Case, list[Run]]:
    cases: dict[Case, list[Run]] = {}
    for run in runs:
        cases.setdefault(run.case, []).append(run)
    return cases


if __name__ == "__main__":
    rows = [{"machine": name} | outcome(name, run_logs=100, seed=2).row() for name in MACHINES]
    print(
        tabulate(
            [{key: "" if value != value else value for key, value in row.items()} for row in rows], "keys", "github"
        )
    )
