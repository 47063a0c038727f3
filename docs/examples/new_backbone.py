"""Another backbone in place of OSNet: plain 1x1 and depthwise 3x3 convolutions.

deskpro train --config docs/examples/new_backbone.py --workdir runs/new_backbone
"""

import flax.linen as nn

from deskpro_jax.configs import synthetic
from deskpro_jax.models import layers
from deskpro_jax.models.osnet import Backbone, ConvUnit


class Plain(nn.Module):
    """A stem (without groups) and convolutions; in as many independent copies as `groups` says."""

    widths: tuple
    groups: tuple
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, x, *, train, valid=None):
        """Maps [batch, height, width, channels]; `valid` are the rows that BatchNorm takes its statistics from."""
        if not self.groups:
            x = layers.max_pool3x3(layers.StemConv(self.widths[0], self.dtype, name="stem")(x))
        for i, width in enumerate(self.widths):
            x = ConvUnit(width, self.groups, dtype=self.dtype, name=f"unit{i}")(x, train=train, valid=valid)
            x = layers.Depthwise3x3(self.groups, self.dtype, name=f"depthwise{i}")(x)
        return layers.avg_pool2x2(x)


PLAIN = Backbone(
    (16, 64, 96, 128),
    trunk=lambda spec, streams, dtype, name: Plain(spec.channels[:3], (), dtype, name=name),
    tail=lambda spec, groups, streams, dtype, name: Plain(spec.channels[3:], groups, dtype, name=name),
)


def get_config(variant=None):
    """Returns the configuration: the synthetic dataset, the body stream, the backbone."""
    config = synthetic.get_config(f"csa,{variant}" if variant else "csa")
    config.model.backbone = "new_backbone:PLAIN"
    return config
