"""One thread for torch, as in the model layer's tests."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
