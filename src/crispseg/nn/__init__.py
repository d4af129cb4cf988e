"""Building blocks shared by all decoders."""

from crispseg.nn.layers import BatchNorm2d, conv_bn_relu, resize
from crispseg.nn.record import Tap, record
from crispseg.nn.sampling import sampled_dot, sampled_sum

__all__ = ["BatchNorm2d", "Tap", "conv_bn_relu", "record", "resize", "sampled_dot", "sampled_sum"]
