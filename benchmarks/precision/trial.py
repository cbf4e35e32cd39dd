"""One small network trained on the generated task, and its Dice on held-out slices under every mode."""

import hashlib
from pathlib import Path

import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.precision import task
from segbench import machine, modes, runtimes
from segbench.cases import Case
from segbench.models import segmenter

BATCH = 8
PEAK = 3e-3  # learning rate of AdamW at the top of one cycle (Smith and Topin 2018, arXiv 1708.07120)


def trained(settings, decoder: str) -> nn.Module:
    """The network, ready for inference. Its state dict is kept in the cache."""
    torch.manual_seed(settings.seed)
    sides = (settings.size, settings.size)
    network = segmenter.assemble(settings.model, decoder, len(task.CLASSES), sides, in_chans=1)
    code = hashlib.sha256(Path(__file__).read_bytes() + Path(task.__file__).read_bytes()).hexdigest()[:8]
    name = f"{settings.model}-{decoder}-{settings.size}-{settings.steps}-{settings.seed}-{torch.__version__}-{code}.pt"
    path = machine.cache_folder() / "precision" / name
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
    else:
        train(network, settings, f"training {settings.model} with {decoder}")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)
    return reparameterize_model(network.eval()).eval().requires_grad_(False)


def train(network: nn.Module, settings, title: str) -> None:
    """By cross-entropy and soft Dice, as nnU-Net does (Isensee et al. 2021, Nature Methods 18). A class weighs
    one over the root of its share of the pixels: with equal weights UNet finds no lesion after so few steps."""
    network.train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK, total_steps=settings.steps)
    first = settings.seed * settings.steps * BATCH
    _, labels = task.batch(range(first, first + 64), settings.size)
    weights = labels.flatten().bincount(minlength=len(task.CLASSES)).clamp(min=1) ** -0.5
    for step in (bar := tqdm(range(settings.steps), desc=title)):
        images, labels = task.batch(range(first + step * BATCH, first + (step + 1) * BATCH), settings.size)
        (logits,) = network(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, labels, weights) + 1 - soft_dice(logits.softmax(1), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")


def soft_dice(shares: Tensor, labels: Tensor) -> Tensor:
    """Mean over the classes without the background; shares (B, C, H, W), labels (B, H, W)."""
    truth = F.one_hot(labels, shares.shape[1]).permute(0, 3, 1, 2)
    overlap, total = (shares * truth).sum((0, 2, 3)), shares.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    return ((2 * overlap + 1) / (total + 1))[1:].mean()


def dice(predicted: Tensor, labels: Tensor, label: int) -> float:
    """2 |A and B| / (|A| + |B|) of one class; NaN where the slice has none of it."""
    mask, truth = predicted == label, labels == label
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum())) if truth.any() else float("nan")


def predictions(network: nn.Module, name: str, images: Tensor, settings) -> list[Tensor]:
    """Label maps (H, W) of every image, by the same call that other benchmarks time."""
    mode = modes.MODES[name]
    runtime = runtimes.of_mode(mode)
    calibration, _ = task.batch(range(task.CALIBRATION, task.CALIBRATION + 32), settings.size)
    runtime.preload(mode)
    prepared = runtime.prepare(
        network,
        images[:1],
        mode,
        torch.get_num_threads(),
        machine.cache_folder(),
        lambda example: [*calibration.split(1)],
    )
    maps = []
    for image in images.split(1):
        prepared.feed(image)
        maps.append(prepared.outputs(prepared.call())[0].argmax(dim=1)[0].clone())
    return maps


def measure(settings) -> list[dict]:
    """A row per decoder, mode, image and class."""
    here, rows = machine.describe(), []
    torch.set_num_threads(machine.usable_cores())
    numbers = range(task.HELD_OUT, task.HELD_OUT + settings.images)
    images, labels = task.batch(numbers, settings.size)
    for decoder in settings.decoders:
        network = trained(settings, decoder)
        for name in settings.modes:
            mode = modes.MODES[name]
            case = Case(model=settings.model, mode=name, size=(settings.size,) * 2, decoder=decoder)
            if reason := runtimes.missing(mode, case, here):
                print(f"{name}: skipped, {reason}")
                continue
            maps = predictions(network, name, images, settings)
            about = {"machine": here.name, "cpu": here.title, "model": settings.model, "decoder": decoder, "mode": name}
            for number, predicted, truth in zip(numbers, maps, labels, strict=True):
                for label, class_name in enumerate(task.CLASSES[1:], start=1):
                    score = round(dice(predicted, truth, label), 5)
                    rows.append(about | {"image": number - task.HELD_OUT, "class": class_name, "dice": score})
    return rows
