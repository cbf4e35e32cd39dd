"""What the benchmark of encoders with UNet shows: the same as that of Semantic FPN."""

from benchmarks.fpn_decoder.report import report

REPORT = report("unet")
