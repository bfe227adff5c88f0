"""What happens to a picture before DCGAN sees it."""

from trainer.augmentation.squares import labelled_squares
from trainer.models.dcgan.config import Config

STORED_AS = {"image": "uint8"}
"""TF Transform knows no bytes but strings; pixels leave it as int64 and are stored as bytes."""


def preprocessing_fn(inputs, config: Config):
    """Encoded pictures become squares: the largest in their centre, brought to the one size.

    Args:
        inputs: `image`, string [batch]: JPEG or PNG; `label`, int64 [batch], where there are
            classes.
        config: decides size and colour, and whether labels are kept.

    Returns:
        `image`, int64 [batch, size, size, channels] in 0 to 255; `label`, int64 [batch], if
        `config.num_classes`.

    Raises:
        UserError: there are classes, but no label for each picture.
    """
    return labelled_squares(inputs, config.image_size, config.channels, config.num_classes)
