"""What all tests share."""

import os

# Before anything imports torch: tests run in two processes on two cores, and threads that fight are slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")
