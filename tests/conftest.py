"""Before torch is imported: threads that wait should sleep, or two busy processes stall each other.

Where there is no GPU, Triton's kernels run in its interpreter; it must be told so before it is imported.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
