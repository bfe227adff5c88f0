"""Writes the checkpoints beside this file; needs torch, numpy and safetensors.

They were made by `python make_checkpoints.py` with torch 2.13.0, NumPy 2.4.6 and safetensors 0.8.0.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

FOLDER = Path(__file__).parent


def weights() -> OrderedDict[str, torch.Tensor]:
    """One tensor of each kind that a state dict may hold, and views that share a storage."""
    matrix = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    return OrderedDict(
        matrix=matrix,
        transposed=matrix.t(),
        row=matrix[1],
        every_second=torch.arange(8, dtype=torch.float64)[1::2],
        parameter=torch.nn.Parameter(torch.tensor([0.5, -0.5])),
        half=torch.tensor([1.5, -2.0], dtype=torch.float16),
        bfloat16=torch.tensor([[1.0, -3.0], [2.0**100, 2.0**-100]], dtype=torch.bfloat16),
        integer=torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32),
        byte=torch.tensor([0, 255], dtype=torch.uint8),
        mask=torch.tensor([True, False, True]),
        complex=torch.tensor([1 + 2j]),
        empty=torch.zeros(0, 3),
        num_batches_tracked=torch.tensor(7),
    )


def checkpoint() -> dict[str, object]:
    """A training state in the manner of pycls, its network wrapped for data-parallel training."""
    network = torch.nn.DataParallel(torch.nn.BatchNorm1d(2))  # its state dict carries _metadata
    state = network.state_dict()
    state.update({f"module.{name}": tensor for name, tensor in weights().items()})
    return {
        "epoch": 3,
        "test_err": np.float64(29.7),
        "model_state": state,
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": []},
        "cfg": "MODEL:\n  TYPE: regnet\n",
        "dtype": torch.bfloat16,
        "size": torch.Size([2, 3]),
    }


if __name__ == "__main__":
    torch.save(checkpoint(), FOLDER / "archive.pyth")
    torch.save(checkpoint(), FOLDER / "protocol4.pyth", pickle_protocol=4)
    torch.save(checkpoint(), FOLDER / "legacy.pyth", _use_new_zipfile_serialization=False)
    whole = {name: tensor.detach().clone().contiguous() for name, tensor in weights().items()}
    save_file(whole, FOLDER / "weights.safetensors")
