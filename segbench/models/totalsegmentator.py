"""The 3D networks of the official tools: TotalSegmentator's, nnU-Net's larger ResEnc, and MONAI's SegResNet.

All take (B, 1, D, H, W) and return logits (B, classes, D, H, W). The first two need sides divisible by 32, SegResNet
sides divisible by 8.
"""

from torch import nn

WIDTHS = (32, 64, 128, 256, 320, 320)
SMALL_WIDTHS = (8, 16, 32, 64, 128, 256)
STRIDES = (1, 2, 2, 2, 2, 2)
RESIDUALS = (1, 3, 4, 6, 6, 6)  # blocks of each stage of a residual encoder
BLOCKS = {"norm_op": nn.InstanceNorm3d, "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin": nn.LeakyReLU}


def class_names(task: str = "total") -> list[str]:
    """What the 117 output channels of a task mean, the background left out."""
    from totalsegmentator.map_to_binary import class_map

    return [name for _, name in sorted(class_map[task].items())]


def plain_conv_unet(classes: int) -> nn.Module:
    """nnU-Net's PlainConvUNet as TotalSegmentator is trained with: 6 stages of two convolutions, 32 to 320 channels.

    "TotalSegmentator" (Wasserthal et al. 2023, Radiology: AI 5(5)); "nnU-Net" (Isensee et al. 2021, Nature Methods 18).
    """
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    return PlainConvUNet(1, 6, WIDTHS, nn.Conv3d, 3, STRIDES, 2, classes, 2, conv_bias=True, **BLOCKS)


def resenc(classes: int, widths: tuple[int, ...] = WIDTHS) -> nn.Module:
    """nnU-Net's residual encoder UNet with 6 stages of 1, 3, 4, 6, 6 and 6 blocks.

    "nnU-Net Revisited" (Isensee et al. 2024, arXiv 2404.09556).
    """
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    return ResidualEncoderUNet(1, 6, widths, nn.Conv3d, 3, STRIDES, RESIDUALS, classes, 1, conv_bias=True, **BLOCKS)


def small(classes: int) -> nn.Module:
    """The small network of TotalSegmentator's task `total_v3` (`-ms small`): its plans are called
    nnUNetResEncUNetLPlans_8, so this is `resenc` with 8 channels in the first stage, doubled from stage to stage. The
    plans themselves come with the weights and were not seen."""
    return resenc(classes, SMALL_WIDTHS)


def segresnet(classes: int) -> nn.Module:
    """MONAI's SegResNet with 32 filters, the network of its whole-body CT bundle. Raises ImportError without MONAI.

    "3D MRI brain tumor segmentation using autoencoder regularization" (Myronenko 2018, arXiv 1810.11654).
    """
    from monai.networks.nets import SegResNet

    return SegResNet(3, init_filters=32, in_channels=1, out_channels=classes, blocks_down=(1, 2, 2, 4))
