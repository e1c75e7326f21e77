"""Images of sizes that a network takes."""

import torch.nn.functional as F
from torch import Tensor


def padded(image: Tensor, *, multiple_of: int = 1, smallest: int = 1, square: bool = False) -> Tensor:
    """The image (batch, band, y, x), grown at the bottom and the right until its sides are what a network takes.

    It is mirrored, as Real-ESRGAN and spandrel do, and past its own size goes on as its edge is. What is added depends
    on the last rows and columns alone, so that a tile at the edge of the scene is continued as the scene is.

    Args:
        image: Pixels in any unit.
        multiple_of: Both sides become multiples of this.
        smallest: Both sides become at least this.
        square: Both sides become the longer of the two.
    """
    sides = [-(-max(side, smallest) // multiple_of) * multiple_of for side in image.shape[-2:]]
    if square:
        sides = [max(sides)] * 2
    below, right = (side - given for side, given in zip(sides, image.shape[-2:], strict=True))
    if not (below or right):
        return image
    mirrored = min(right, image.shape[-1] - 1), min(below, image.shape[-2] - 1)
    image = F.pad(image, (0, mirrored[0], 0, mirrored[1]), mode="reflect")
    return F.pad(image, (0, right - mirrored[0], 0, below - mirrored[1]), mode="replicate")
