"""Building blocks shared by all decoders."""

from crispseg.nn.layers import BatchNorm2d, conv_bn_relu, resize
from crispseg.nn.record import Tap, record

__all__ = ["BatchNorm2d", "Tap", "conv_bn_relu", "record", "resize"]
