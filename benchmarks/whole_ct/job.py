"""What benchmark.py asks of one run, and what it is told: without torch, which is for the run's own process."""

import msgspec


class Job(msgspec.Struct):
    way: str  # nnunet, official or fast
    as_in: str  # what fast does the same as: nnunet or official
    model: str
    classes: tuple[int, ...]  # of each network
    resolution_mm: float
    step: float  # of a tile, from one to the next
    mode: str
    voxels: tuple[int, int, int]  # of the synthetic CT, (D, H, W)
    spacing_mm: tuple[float, float, float]
    labels: str  # a file to write them to, .npy
    volume: str = ""  # .npy of (D, H, W), Hounsfield units; instead of the synthetic CT, which is normalised
    weights: tuple[str, ...] = ()  # a checkpoint per network
    intensities: tuple[tuple[float, float, float, float], ...] = ()  # per network: HU at which it clips, mean and std
    merge: tuple[tuple[int, ...], ...] = ()  # per network the label of each of its classes among all; or as they are
    export: str = "torch"  # of EXPORTS
    exact: bool = False  # nnU-Net's sums in FP32: for labels to compare with, not to be timed


class JobResult(msgspec.Struct):
    parts_s: dict[str, float]
    peaks_mb: dict[str, float]  # of the resident set, by part
    whole_s: float
    prepare_s: float  # once per network and machine, not part of the whole
    peak_mb: float
    tiles: int
