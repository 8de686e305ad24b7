"""A network's parameters as they travel: by name, with the version that an update gave them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Every parameter by its name, in the order of `NetworkSpec.parameter_shapes`.
Weights = dict[str, NDArray[np.float32]]


class VersionedWeights(NamedTuple):
    """Weights and their version, which grows by one with every update and never goes back."""

    version: int
    weights: Weights
