"""Tables and pictures of encoders with UNet: the same as with Semantic FPN."""

from benchmarks.fpn_decoder.report import report

REPORT = report("unet")
