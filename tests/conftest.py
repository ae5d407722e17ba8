"""Before torch is imported: threads that wait should sleep, or two busy processes stall each other."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
